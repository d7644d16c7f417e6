"""Who sends a request: the claims of its access token, checked in every service.

The gateway checks tokens too, but a service that believed its headers would believe anybody who
can reach its port.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from starlette.requests import Request

from runtime.errors import Forbidden, Unauthorized

Role = Literal["user", "admin", "service"]


@dataclass(frozen=True)
class Caller:
    """`user_id` is None for a client that acts for itself (role service or admin)."""

    role: Role
    client: str
    user_id: int | None = None
    session: int | None = None

    def may_act_for(self, user_id: int) -> bool:
        """A user for itself; admins and services for everybody."""
        return self.role != "user" or self.user_id == user_id


def caller(request: Request) -> Caller:
    """Raises `Unauthorized` when the request has no token."""
    found: Caller | None = request.scope.get("caller")
    if found is None:
        raise Unauthorized(
            "This needs an access token.",
            hint="POST /oauth/token, then send the header Authorization: Bearer TOKEN.",
        )
    return found


def require_admin(request: Request) -> Caller:
    """Raises `Unauthorized` or `Forbidden`."""
    found = caller(request)
    if found.role != "admin":
        raise Forbidden("Only an admin may do this.")
    return found
