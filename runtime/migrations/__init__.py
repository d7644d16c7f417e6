"""The schemas of the two kinds of database, brought up to date by Alembic.

The roles exist before: the provider makes `regionctl`, `replicator`, and by `roles.create` the
group `app` and one role for each service. What each may do is granted here, and is the least that
the service needs; none can change `regionctl.slot_owner`. A service whose SQL uses one more column
needs a grant of it.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from ssl import SSLContext
from typing import Any, Literal

Kind = Literal["shard", "catalog"]

# Alembic keeps the migration at hand in module globals: one at a time in a process.
_one_at_a_time = threading.Lock()


async def upgrade(
    kind: Kind,
    *,
    host: str,
    port: int,
    user: str,
    password: str | None = None,
    database: str = "app",
    ssl: SSLContext | bool = False,
) -> None:
    """The database has the newest schema of `kind`; repeating it changes nothing.

    `user` must be a superuser or own the database. Raises what the driver raises.
    """
    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    url = URL.create("postgresql+asyncpg", user, password, host, port, database)
    engine = create_async_engine(url, poolclass=NullPool, connect_args={"ssl": ssl})
    await asyncio.to_thread(_one_at_a_time.acquire)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade, kind)
    finally:
        _one_at_a_time.release()
        await engine.dispose()


def _upgrade(connection: Any, kind: Kind) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, f"{kind}@head")
