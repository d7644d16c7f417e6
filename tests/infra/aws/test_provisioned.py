"""`regionctl up` against the control plane of a platform on AWS, as emulators play it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from anyio.from_thread import start_blocking_portal

from control_plane import app
from infra import oauth_clients
from infra.aws import provider
from infra.aws.clients import Cloud
from infra.aws.provider import AwsProvider
from tests.cli.console import Ended, regionctl
from tests.control_plane.served import TOKEN, serving
from tests.infra.aws import emulators, volume
from tests.ports import free_port
from tests.runtime.servers import Postgres


@dataclass
class Platform:
    """`servers` are the volumes, by database; what `up` is told of its control plane is `there`."""

    home: Path
    name: str
    entry: str
    servers: Mapping[str, Postgres]
    there: Mapping[str, str]

    def run(self, *arguments: str) -> Ended:
        return regionctl(*arguments, home=self.home, env=self.there)


@pytest.fixture(scope="module")
def platform(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """As `infra up` leaves it: no roles, no schema, no shard map. Emulated tasks all stand in the
    first zone, so there is no other."""
    made = emulators.site(cloud, "first", remote=("a",))
    first, second = made.topology.regions
    topology = replace(made.topology, regions=(replace(first, zones=("a",)), second))
    topology = replace(topology, failover=replace(topology.failover, automatic=False))
    site = replace(made, topology=topology)
    emulators.build(site)
    home, port = tmp_path_factory.mktemp("first"), free_port()
    control = home / "there" / "control"
    control.mkdir(parents=True)
    (control / "token").write_text(TOKEN)
    with (
        volume.running(topology.databases) as servers,
        pytest.MonkeyPatch.context() as patch,
        start_blocking_portal() as portal,
    ):
        sessions = volume.attach(site, servers)
        # What a container is told, and the way into a network that only a container has.
        patch.setattr(app, "load", lambda _: topology)
        patch.setattr(provider, "AwsProvider", lambda _: AwsProvider(topology, cloud, sessions))
        there = {
            "REGIONCTL_SERVER": f"http://127.0.0.1:{port}",
            "REGIONCTL_TOKEN_FILE": str(control / "token"),
            "REGIONCTL_STATE_DIR": "",
        }
        with portal.wrap_async_context_manager(serving(home / "there", port)):
            entry = f"https://{site.names.entry()}"
            yield Platform(home, topology.name, entry, servers, there)


@pytest.mark.process
def test_the_control_plane_on_aws_provisions_a_platform_once(platform: Platform) -> None:
    planned = json.loads(platform.run("up", "--dry-run", "-o", "json").stdout)
    names = [step["name"] for step in planned["steps"]]
    assert names == [
        *("ensure-regions", "start-servers", "create-primaries", "adopt-map", "set-epochs"),
        *("publish-map", "seed-catalog", "clone-standbys", "start-servers", "await-ready"),
    ]
    made = platform.run("up", "--topology", platform.name, "-o", "json")
    assert made.code == 0, made.stderr
    document: dict[str, Any] = json.loads(made.stdout)
    assert (document["name"], document["entryUrl"]) == (platform.name, platform.entry)
    # Roles, schema, first map, products and the clients that may log in.
    catalog = platform.servers["catalog"]
    assert fetch(catalog, "SELECT count(*) > 0 FROM products") == [(True,)]
    assert fetch(catalog, "SELECT true FROM pg_roles WHERE rolname = 'orders'") == [(True,)]
    digest = oauth_clients.digest(volume.CLIENT_SECRET)
    assert fetch(catalog, "SELECT id, role, secret_hash FROM oauth_clients ORDER BY id") == [
        ("operator", "admin", digest),
        ("probe", "service", digest),
    ]
    assert fetch(platform.servers["s1"], "SELECT min(epoch) FROM regionctl.slot_owner") == [(1,)]
    again = platform.run("up", "--topology", platform.name)
    assert (again.code, "nothing to do" in again.stderr) == (0, True), again.stderr


def fetch(server: Postgres, query: str) -> list[tuple[Any, ...]]:
    async def ask() -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(**server.dsn())
        try:
            return [tuple(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()

    return asyncio.run(ask())


@pytest.mark.process
def test_a_platform_that_is_not_the_one_that_is_meant_is_left_alone(platform: Platform) -> None:
    ended = platform.run("up", "--topology", "two-regions")
    assert ended.code == 5
    assert "nothing was begun" in ended.stderr
