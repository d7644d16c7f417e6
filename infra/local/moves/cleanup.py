"""Removing rows of slots from a database that does not own them, unseen by every stream.

The deletes carry a replication origin, so no stream (all have `origin = none`) sends them on. They
go by ranges of blocks, each a transaction that proves first that the claim is still the newest and
that none of the slots is owned here.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from infra.local.monitor import Monitor
from infra.local.moves.owners import Claim
from infra.local.moves.sides import TABLES, Side, limit_idling, ranges_of, within
from runtime.errors import OperationFailed

ORIGIN = "regionctl_cleanup"
# One session at a time may use the origin.
_LOCK = 7412
BLOCKS = 256
_OWNED = """
SELECT slot FROM regionctl.slot_owner
WHERE slot = ANY($1::int[]) AND state IN ('owned', 'fencing') LIMIT 1
"""


async def remove(monitor: Monitor, claim: Claim, side: Side, slots: Sequence[int]) -> int:
    """No row of `slots` is on `side`, nor the origin's name; returns how many rows went.

    Raises `OperationFailed`, with nothing lost, when one of the slots is owned there.
    """
    removed = 0
    async with monitor.session(side.instance) as connection, _unseen(connection):
        for table in TABLES if slots else ():
            condition = within(ranges_of(slots))
            blocks = await connection.fetchval(
                "SELECT pg_relation_size($1::text::regclass) / current_setting('block_size')::int",
                f"public.{table}",
            )
            for first in range(0, blocks, BLOCKS):
                async with claim.change(side, connection):
                    await _require_foreign(connection, side, slots)
                    status = await connection.execute(
                        f"DELETE FROM public.{table} WHERE ctid >= '({first},0)'::tid "  # noqa: S608
                        f"AND ctid < '({first + BLOCKS},0)'::tid AND ({condition})"
                    )
                    removed += int(status.split()[-1])
    return removed


async def _require_foreign(connection: Any, side: Side, slots: Sequence[int]) -> None:
    slot = await connection.fetchval(_OWNED, list(slots))
    if slot is not None:
        raise OperationFailed(
            f"{side.shard} owns slot {slot}: its rows are not removed.",
            extra={"instance": side.instance, "slot": slot},
        )


@contextlib.asynccontextmanager
async def _unseen(connection: Any) -> AsyncIterator[None]:
    await limit_idling(connection)
    await connection.execute("SET synchronous_commit = off")
    await connection.execute(f"SELECT pg_advisory_lock({_LOCK})")
    await connection.execute(
        f"SELECT pg_replication_origin_create('{ORIGIN}') "
        f"WHERE pg_replication_origin_oid('{ORIGIN}') IS NULL"
    )
    await connection.execute(f"SELECT pg_replication_origin_session_setup('{ORIGIN}')")
    yield
    # Not behind `finally`: on another way out the session ends, and with it all but the name.
    await connection.execute("SELECT pg_replication_origin_session_reset()")
    await connection.execute(f"SELECT pg_replication_origin_drop('{ORIGIN}')")
    await connection.execute(f"SELECT pg_advisory_unlock({_LOCK})")
