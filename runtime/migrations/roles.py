"""The roles that services log in as, one for each service, and the group `app` of them all.

What a role may do is granted by the revisions: to the group what every service does, to the role
what its own SQL does, by table and column. So a service that is taken over can forge no token and
change nothing of another service's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GROUP = "app"
ROLES = ("auth", "users", "orders", "payments", "inventory", "notifications")


async def create(connection: Any, passwords: Mapping[str, str]) -> None:
    """The group exists, and every role of `passwords`, as a member of it.

    Before `upgrade`, by a superuser, whose session should log no failed statement: they have the
    passwords. Roles that exist are left as they are, so repeating it waits for no standby.
    """
    async with connection.transaction():
        rows = await connection.fetch("SELECT rolname, rolcanlogin FROM pg_roles")
        known: dict[str, bool] = {row["rolname"]: row["rolcanlogin"] for row in rows}
        if GROUP not in known:
            await connection.execute(f"CREATE ROLE {GROUP} NOLOGIN")
        elif known[GROUP]:
            await connection.execute(f"ALTER ROLE {GROUP} NOLOGIN PASSWORD NULL")
        for role in sorted(passwords.keys() - known):
            quoted = passwords[role].replace("'", "''")
            await connection.execute(
                f"CREATE ROLE {role} LOGIN INHERIT PASSWORD '{quoted}' IN ROLE {GROUP}"
            )
