"""What the edge did, minute by minute, for as long as error budgets are for.

One row a minute, written when the minute is over: a control plane that dies loses at most that.
Minutes in which nobody looked (it was away, the edge did not say) have no row and count nothing;
those in which the edge let nobody in have the requests that were to be expected, as failed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, Select, delete, func, insert, select, update

from control_plane.database import Database
from control_plane.levels import Tally
from control_plane.records import minute
from infra.slo import PERIOD_SECONDS

SECONDS = 60
NAMES = tuple(field.name for field in fields(Tally))


class Minutes:
    def __init__(self, database: Database) -> None:
        self.database = database

    async def keep(self, number: int, tally: Tally) -> None:
        """Adds to a minute, and forgets those that no budget is for any more.

        Two control planes, one after the other, may each have seen a part of one minute.
        """
        if tally == Tally():
            return
        table = minute.c
        added = {name: table[name] + value for name, value in asdict(tally).items()}
        too_old = number - PERIOD_SECONDS // SECONDS
        async with self.database.write() as connection:
            found = await connection.execute(
                update(minute).where(table.number == number).values(added)
            )
            if not found.rowcount:
                await connection.execute(insert(minute).values(number=number, **asdict(tally)))
            await connection.execute(delete(minute).where(table.number < too_old))

    async def period(self, now: datetime) -> tuple[datetime | None, Tally]:
        """The first minute that is kept, and all of them together."""
        first = _number(now, PERIOD_SECONDS)
        async with self.database.read() as connection:
            oldest = await connection.scalar(
                select(func.min(minute.c.number)).where(minute.c.number >= first)
            )
            row = (await connection.execute(_sum(first))).one()
        began = None if oldest is None else datetime.fromtimestamp(oldest * SECONDS, UTC)
        return began, _tally(row)

    async def windows(self, now: datetime, seconds: Iterable[float]) -> dict[float, Tally]:
        """Length of each window, which ends now → what happened within it."""
        async with self.database.read() as connection:
            return {
                each: _tally((await connection.execute(_sum(_number(now, each)))).one())
                for each in seconds
            }


def _number(now: datetime, seconds: float) -> int:
    """The first minute of which all lies within so many seconds."""
    return int(-((seconds - now.timestamp()) // SECONDS))


def _tally(row: Row[Any]) -> Tally:
    """SQLite and PostgreSQL have sums of types of their own."""
    requests, errors, timed, slow, slices, bad = tuple[Any, ...](row)
    return Tally(int(requests), int(errors), int(timed), float(slow), int(slices), int(bad))


def _sum(first: int) -> Select[Any]:
    columns = (func.coalesce(func.sum(minute.c[name]), 0) for name in NAMES)
    return select(*columns).where(minute.c.number >= first)
