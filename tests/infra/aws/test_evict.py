"""Sessions that are open when a region is fenced: ended, and proven to be, or said to be open."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import asyncpg
import pytest

from infra.aws.clients import Cloud
from infra.aws.operate import fence
from infra.aws.operate.evict import evict
from infra.aws.sessions import LOST, Sessions
from infra.aws.site import Site
from infra.provider import Fenced
from runtime.clock import FakeClock
from tests.infra.aws import volume
from tests.infra.aws.test_global_database import EAST, FIRST
from tests.ports import free_port
from tests.runtime.servers import Postgres

MAKE = """
DO $$ BEGIN
  IF to_regrole('late') IS NULL THEN CREATE ROLE late LOGIN PASSWORD 'secret'; END IF;
END $$;
CREATE TABLE IF NOT EXISTS written (id int);
TRUNCATE written;
GRANT INSERT ON written TO late;
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """The volume of s1."""
    with volume.running(["s1"]) as servers:
        yield servers["s1"]


@pytest.mark.process
def test_a_session_that_was_open_writes_no_more_when_it_is_called_ended(
    shard: Site, server: Postgres
) -> None:
    sessions = volume.attach(shard, {"s1": server})

    async def check() -> None:
        async with sessions.session(FIRST) as administrator:
            await administrator.execute(MAKE)
            service = await asyncpg.connect(**server.dsn("late"))
            await service.execute("INSERT INTO written VALUES (1)")
            await service.execute("BEGIN; INSERT INTO written VALUES (2)")
            assert await evict(shard, sessions, EAST) == [
                Fenced(True, f"1 sessions with {shard.names.instance('s1', EAST, 'a')} were ended")
            ]
            with pytest.raises(LOST):
                await service.execute("COMMIT")
            service.terminate()
            # The administrator's own session goes on, and finds only what was committed before.
            assert await administrator.fetch("SELECT id FROM written") == [(1,)]

    asyncio.run(check())


class Returning(FakeClock):
    """While somebody waits, a service opens a session anew."""

    def __init__(self, server: Postgres) -> None:
        super().__init__()
        self._server = server
        self.opened: list[asyncpg.Connection] = []

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        self.opened.append(await asyncpg.connect(**self._server.dsn("late")))


@pytest.mark.process
def test_a_region_to_which_a_service_comes_back_again_and_again_is_not_called_fenced(
    site: Site, server: Postgres
) -> None:
    clock = Returning(server)
    open_to_it = replace(site, cloud=Cloud(site.cloud.endpoints, pause=20.0, clock=clock))
    # Nobody gets into the catalog, which is restarted.
    attached = volume.attach(site, {"s1": server})
    dial = {**attached.dial, "catalog": ("127.0.0.1", free_port())}
    sessions = replace(attached, site=open_to_it, dial=dial)

    async def check() -> None:
        async with sessions.session(FIRST) as administrator:
            await administrator.execute(MAKE)
        fenced = await fence.fence_region(open_to_it, sessions, EAST)
        assert not fenced.fenced
        assert f"sessions with {site.names.instance('s1', EAST, 'a')} come back" in fenced.how
        for each in clock.opened:
            each.terminate()

    asyncio.run(check())


@pytest.mark.shows("rds.reboot_db_instance")
def test_a_server_that_lets_nobody_in_is_restarted(shard: Site) -> None:
    sessions = Sessions(shard, bundle=None, dial={"s1": ("127.0.0.1", free_port())})
    (found,) = asyncio.run(evict(shard, sessions, EAST))
    assert found == Fenced(True, f"{shard.names.instance('s1', EAST, 'a')} was restarted")
