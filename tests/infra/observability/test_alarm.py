"""A fault becomes an alert, and the alert reaches whoever is to be told: all programs are real."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.local import monitoring, ports
from infra.local.layout import Layout
from infra.local.monitoring import ALERTMANAGER, PROMETHEUS, Choice
from infra.observability.files import Monitoring
from infra.observability.model import CONTROL_PLANE, GATEWAYS, Pace, Receivers, Target
from infra.observability.prometheus import ControlPlaneAccess
from infra.provider import Fault
from infra.topology import EDGE, load
from runtime.clock import SystemClock, wait_until
from tests.control_plane import scenarios
from tests.control_plane.platform import Platform
from tests.control_plane.served import TOKEN, serving, state_dir
from tests.infra.frontdoor import FrontDoor, front_door
from tests.infra.observability.tools import program, write
from tests.ports import neighbours

pytestmark = pytest.mark.process
QUICK = Pace(scrape=1, evaluate=1, window=10, hold=1, group=1)
CLOCK = SystemClock()
SECONDS = 120.0


class Receiver:
    """Somebody's webhook: keeps every alert that it is sent."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        kept = self.alerts

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                kept.extend(json.loads(body)["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def find(self, alert: str, status: str = "firing") -> dict[str, Any] | None:
        for each in self.alerts:
            if each["labels"]["alertname"] == alert and each["status"] == status:
                return each
        return None

    async def await_alert(self, alert: str, status: str = "firing") -> dict[str, Any]:
        async def came() -> bool:
            return self.find(alert, status) is not None

        what = f"{alert} to be {status} at the receiver"
        await wait_until(CLOCK, came, what=what, seconds=SECONDS)
        found = self.find(alert, status)
        assert found is not None
        return found


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[FrontDoor]:
    with front_door(tmp_path / "doors") as door:
        yield door


@contextmanager
def running(root: Path, receiver: Receiver, *targets: Target) -> Iterator[dict[str, str]]:
    """Prometheus and Alertmanager as a platform has them, looking at `targets`: their URLs."""
    layout, table = Layout(root), replace(ports.table(load("two-regions")), control=neighbours(2))
    both = monitoring.addresses(table)
    receivers = Receivers(webhook_url=receiver.url)
    choice = Choice(program(PROMETHEUS), program(ALERTMANAGER), receivers)
    wanted = Monitoring(
        "small",
        targets,
        own=both[PROMETHEUS],
        alertmanager=both[ALERTMANAGER],
        access=ControlPlaneAccess(str(monitoring.token_file(layout))),
        receivers=receivers,
        pace=QUICK,
    )
    write(monitoring.folder(layout), wanted)
    monitoring.token_file(layout).write_text(TOKEN)
    started = []
    try:
        for each in monitoring.programs(layout, choice, table):
            with (root / f"{each.name}.log").open("wb") as log:
                started.append(subprocess.Popen(each.command, stderr=log, cwd=each.directory))
        yield {name: f"http://{address}" for name, address in both.items()}
    finally:
        for process in started:
            process.kill()
            process.wait()


async def all_seen(url: str, count: int) -> None:
    """Prometheus reads the metrics of `count` targets."""

    async def seen() -> bool:
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                query = {"query": "count(up == 1)"}
                answer = await client.get(f"{url}/api/v1/query", params=query)
            found = answer.raise_for_status().json()["data"]["result"]
        except httpx.HTTPError:
            return False
        return bool(found) and int(found[0]["value"][1]) == count

    await wait_until(CLOCK, seen, what=f"{count} targets to be read", seconds=SECONDS, every=0.2)


async def test_a_lost_edge_and_a_lost_database_reach_the_receiver_with_what_to_type(
    tmp_path: Path, receiver: Receiver, door: FrontDoor
) -> None:
    async with serving(state_dir(tmp_path / "state")) as (address, plane):
        platform = Platform(plane.provider, plane.store, plane.clock)  # type: ignore[arg-type]
        await scenarios.provisioned(platform)
        targets = (
            Target(EDGE, EDGE, f"127.0.0.1:{door.edge_admin}", EDGE, "", ""),
            Target(GATEWAYS, "gateway", f"127.0.0.1:{door.gateway_admin}", "gateway", "r", "a"),
            Target(CONTROL_PLANE, CONTROL_PLANE, address[7:], CONTROL_PLANE, "", ""),
        )
        with running(tmp_path, receiver, *targets) as urls:
            await all_seen(urls[PROMETHEUS], len(targets) + 2)
            assert receiver.alerts == []
            door.kill_edge()
            await platform.provider.inject(Fault("kill", "s1.us-east-1a"))
            edge, database = await asyncio.gather(
                receiver.await_alert("EdgeDown"), receiver.await_alert("DatabaseDown")
            )
            assert edge["labels"]["severity"] == "critical"
            assert edge["annotations"]["command"] == "regionctl runbook show service-outage"
            assert database["labels"]["database"] == "s1"
            assert database["annotations"]["runbook"] == "database-failure"
            assert receiver.find("RegionDown") is None
