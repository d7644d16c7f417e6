"""`up --with monitoring`: Prometheus and Alertmanager run under the global supervisor.

What was chosen once is gone on with by every later `up`, until `up --without monitoring`.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509

from control_plane import settings as environment
from control_plane.client import Client
from control_plane.listen import Listen
from infra.local import layout as files
from infra.local import monitoring, ports, scaling, servers
from infra.local.layout import Layout
from infra.local.monitoring import ALERTMANAGER, PROMETHEUS, Choice
from infra.local.ports import Ports
from infra.local.supervisor import Program, Supervisor, tail
from infra.observability.model import Pace, Receivers
from infra.observability.prometheus import ControlPlaneAccess
from infra.topology import Topology
from runtime.clock import SystemClock, wait_until
from runtime.errors import OperationFailed, Refused, TimedOut

JSON = dict[str, Any]
READY_SECONDS = 30.0
TOKEN_NAME = "prometheus"  # noqa: S105


def asked(topology: Topology, wanted: bool | None) -> Choice | None:
    """What `up` was asked for; None: nothing of the kind. Raises `Refused` when a program is
    missing, before anything is made."""
    if not wanted:
        return None
    if topology.provider != "local":
        raise Refused(
            f"A platform of the provider {topology.provider} has nothing to be looked at.",
            hint="leave out --with monitoring",
        )
    return _choice()


def choose(paths: Layout, table: Ports, wanted: bool | None, choice: Choice | None) -> None:
    """Takes down what is wanted of the monitoring; None: as it was. Raises `PortTaken`."""
    if wanted is None:
        return
    if choice is not None and monitoring.read(paths) is None:
        ports.require_free(monitoring.ports(table))
    monitoring.choose(paths, choice)


def _choice() -> Choice:
    chosen = environment.monitoring_choices()
    return Choice(
        monitoring.find(PROMETHEUS, chosen.prometheus_bin),
        monitoring.find(ALERTMANAGER, chosen.alertmanager_bin),
        Receivers(
            chosen.pagerduty_key_file,
            chosen.slack_url_file,
            chosen.slack_channel or Receivers.slack_channel,
            chosen.alert_webhook,
        ),
        chosen.scrape_seconds or Pace.scrape,
    )


def programs(paths: Layout, topology: Topology, table: Ports, where: Listen) -> list[Program]:
    """Both, with their files as they should be by now; none when it is not monitored."""
    choice = monitoring.read(paths)
    if choice is None:
        return []
    with files.explain_disk(paths.root):
        certificate = monitoring.folder(paths) / "control-plane.pem"
        if where.certificate is not None:
            files.replace_file(certificate, where.certificate)
        own = access(where, str(monitoring.token_file(paths)), str(certificate))
        pace = Pace.every(choice.scrape_seconds)
        address = urlsplit(where.address(table.control)).netloc
        by_now = replace(topology, counts=scaling.read(paths))
        theirs = ports.table(by_now, table.control - ports.BASE)
        monitoring.write(
            paths,
            monitoring.wanted(by_now, theirs, address, own, choice.receivers, pace),
        )
        return monitoring.programs(paths, choice, table)


def access(where: Listen, token: str, certificate: str) -> ControlPlaneAccess:
    """How Prometheus may ask the control plane, with these two files."""
    if where.certificate is None:
        return ControlPlaneAccess(token)
    first = x509.load_pem_x509_certificate(where.certificate.encode())
    names: list[Any] = []
    with contextlib.suppress(x509.ExtensionNotFound):
        found = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [each.value for each in found]
    return ControlPlaneAccess(token, certificate, str(names[0]) if names else "")


async def settle(paths: Layout, supervisor: Supervisor, table: Ports, where: Listen) -> JSON:
    """Both answer and have read their files, and Prometheus has a token: their URLs by name.

    Raises `OperationFailed` with the last lines of the log of one that does not come up.
    """
    address = where.address(table.control)
    if monitoring.read(paths) is None:
        if monitoring.token_file(paths).exists():
            await _take_token(paths, address)
        monitoring.forget(paths)
        return {}
    if not monitoring.token_file(paths).exists():
        await _give_token(paths, address)
    both = monitoring.ports(table)
    for name in both.values():
        await supervisor.start_program(name)
    await asyncio.gather(*(_ready(supervisor, name, port) for port, name in both.items()))
    for name in both.values():
        # Only one that is ready is sure to take this for a wish to read its files again.
        await supervisor.call("supervisor.signalProcess", name, "HUP")
    return {name: f"http://{at}" for name, at in monitoring.addresses(table).items()}


async def _ready(supervisor: Supervisor, name: str, port: int) -> None:
    async def answers() -> bool:
        return await servers.http_ok(port, "/-/ready", 1.0)

    try:
        await wait_until(SystemClock(), answers, what=f"{name} to answer", seconds=READY_SECONDS)
    except TimedOut as error:
        log = supervisor.folder / "logs" / f"{name}.log"
        raise OperationFailed(
            f"{name} did not come up within {READY_SECONDS:g} s; the platform itself runs.",
            hint=f"Read {log}; regionctl up --without monitoring goes on without it.",
            extra={"log": str(log), "lines": tail(log, 8)},
        ) from error


async def _give_token(paths: Layout, address: str) -> None:
    """Prometheus may read, and nothing else. A token whose text was lost is replaced."""
    await _take_token(paths, address)
    async with Client(address, state_dir=paths.root) as client:
        made = await client.create_token(TOKEN_NAME, "viewer", reason="to read metrics")
    files.replace_file(monitoring.token_file(paths), made["token"])


async def _take_token(paths: Layout, address: str) -> None:
    async with Client(address, state_dir=paths.root) as client:
        for each in await client.tokens():
            if each["name"] == TOKEN_NAME and each["state"] == "active":
                await client.revoke_token(each["id"], "Prometheus reads no more with it")
