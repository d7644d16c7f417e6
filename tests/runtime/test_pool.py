"""Connections to a server that is away, and how long requests wait for it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.patience import Absences, patience
from runtime.pool import REST_SECONDS, Connection, DialFailed, Pool
from runtime.shards import BUDGET_SECONDS
from runtime.telemetry import CONNECTION_LIMIT, CONNECTIONS
from runtime.transient import LOST_SERVER, transient


async def test_a_server_that_is_away_is_dialled_once_for_all_who_wait() -> None:
    dials = 0

    async def refuse() -> Connection:
        nonlocal dials
        dials += 1
        raise ConnectionRefusedError

    pool = Pool("s1.a", refuse, 8)
    with pytest.raises(ConnectionRefusedError):
        await pool.acquire()
    for _ in range(20):
        with pytest.raises(DialFailed) as failed:
            await pool.acquire()
        assert transient(failed.value) == LOST_SERVER
    assert dials == 1
    async with asyncio.timeout(100 * REST_SECONDS):
        while dials == 1:
            with suppress(DialFailed, ConnectionRefusedError):
                await pool.acquire()
            await asyncio.sleep(REST_SECONDS / 10)
    assert dials == 2


def _said_of(server: str) -> list[str]:
    families = (CONNECTIONS, CONNECTION_LIMIT)
    samples = [
        sample for each in families for family in each.collect() for sample in family.samples
    ]
    return [sample.name for sample in samples if sample.labels["server"] == server]


async def test_nothing_is_said_any_more_of_a_pool_that_was_given_up() -> None:
    async def never() -> Connection:
        raise ConnectionRefusedError

    pool = Pool("s9.gone", never, 8)
    pool.report()
    assert len(_said_of("s9.gone")) == 3
    pool.terminate()
    assert _said_of("s9.gone") == []


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_nobody_waits_longer_for_a_database_that_is_away_longer(one: float, other: float) -> None:
    sooner, later = sorted((one, other))
    assert patience(later, BUDGET_SECONDS) <= patience(sooner, BUDGET_SECONDS)


def test_a_failover_is_waited_for_and_a_lost_database_is_not() -> None:
    assert patience(0.0, 8.0) == patience(7.9, 8.0) == 8.0
    assert patience(8.0, 8.0) < 1.0
    assert patience(60.0, 0.2) == 0.2


def test_an_absence_ends_when_somebody_reaches_it_or_nobody_says_otherwise() -> None:
    absences = Absences(8.0)
    for now in range(100, 110):
        absences.lost("s1", float(now))
    assert absences.patience("s1", 110.0) < 1.0
    assert absences.patience("s2", 110.0) == 8.0
    assert absences.patience("s1", 130.0) == 8.0
    absences.lost("s1", 131.0)
    assert absences.patience("s1", 132.0) == 8.0
    absences.found("s1")
    assert absences.patience("s1", 140.0) == 8.0
