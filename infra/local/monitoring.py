"""Prometheus and Alertmanager beside a platform of this machine, under its global supervisor.

    monitoring/choice.json                     which programs, who is told, how often is looked
    monitoring/{prometheus,alertmanager}.yml   and all else that `infra.observability` writes
    monitoring/secrets/                        the token that Prometheus asks the control plane with
    monitoring/data/                           what both remember

Their ports are the two below the platform's own: those above are for what a topology grows to.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from infra.local import layout as files
from infra.local.layout import Layout
from infra.local.ports import HOST, Ports
from infra.local.supervisor import Program
from infra.observability.files import Monitoring
from infra.observability.files import files as texts_of
from infra.observability.model import CONTROL_PLANE, SERVICES, Pace, Receivers, Target, targets
from infra.observability.prometheus import ControlPlaneAccess, target_files
from infra.slo import of_levels
from infra.topology import EDGE, Topology
from runtime.errors import Refused

PROMETHEUS, ALERTMANAGER = "prometheus", "alertmanager"
# Debian has other names for some programs.
NAMES = {PROMETHEUS: ("prometheus",), ALERTMANAGER: ("alertmanager", "prometheus-alertmanager")}
BROUGHT = Path(__file__).resolve().parents[2] / ".tools" / "bin"
# As long as a budget's period, and a day more.
KEPT = "31d"


@dataclass(frozen=True)
class Choice:
    """`prometheus` and `alertmanager` are paths of the programs; `scrape_seconds`: see
    `Pace.every`."""

    prometheus: str
    alertmanager: str
    receivers: Receivers = field(default_factory=Receivers)
    scrape_seconds: float = Pace.scrape


def find(name: str, given: str | None, brought: Path = BROUGHT) -> str:
    """The program: as given, in PATH, or as `make tools` brought it. Raises `Refused`."""
    if given:
        if os.access(given, os.X_OK) and Path(given).is_file():
            return given
        raise Refused(f"{given} is not a program.", hint=f"unset REGIONCTL_{name.upper()}_BIN")
    for each in NAMES[name]:
        found = shutil.which(each) or shutil.which(each, path=str(brought))
        if found:
            return found
    raise Refused(
        f"{name} is not on this machine, so the platform cannot be monitored.",
        hint="apt-get install prometheus prometheus-alertmanager; without root, make tools in the "
        f"project's folder brings both; or set REGIONCTL_{name.upper()}_BIN",
    )


def ports(table: Ports) -> dict[int, str]:
    """Its two ports, and what listens there."""
    return {table.control - 2: PROMETHEUS, table.control - 1: ALERTMANAGER}


def addresses(table: Ports) -> dict[str, str]:
    """ "host:port" of both programs, by name."""
    return {name: f"{HOST}:{port}" for port, name in ports(table).items()}


def folder(layout: Layout) -> Path:
    return layout.root / "monitoring"


def token_file(layout: Layout) -> Path:
    return folder(layout) / "secrets" / "control-plane.token"


def read(layout: Layout) -> Choice | None:
    """None: the platform is not monitored."""
    try:
        raw: dict[str, Any] = json.loads((folder(layout) / "choice.json").read_text("utf-8"))
    except FileNotFoundError:
        return None
    return Choice(**{**raw, "receivers": Receivers(**raw["receivers"])})


def choose(layout: Layout, choice: Choice | None) -> None:
    """From now on the platform is monitored, or it is not; takes effect when the supervisor learns
    of it."""
    path = folder(layout) / "choice.json"
    if choice is None:
        path.unlink(missing_ok=True)
        return
    files.make_folder(folder(layout), mode=0o700)
    files.make_folder(token_file(layout).parent, mode=0o700)
    files.replace_file(path, json.dumps(asdict(choice), indent=1))


def forget(layout: Layout) -> None:
    """Files, token and what was remembered are gone."""
    shutil.rmtree(folder(layout), ignore_errors=True)


def scraped(topology: Topology, table: Ports, control_plane: str) -> tuple[Target, ...]:
    """`control_plane` is its "host:port"."""
    envoys = {id: table.admin[id] for id in (*table.admin, EDGE) if id in table.admin}
    found = {id: f"{HOST}:{port}" for id, port in {**table.instances, **envoys}.items()}
    return targets(topology, {**found, CONTROL_PLANE: control_plane})


def wanted(
    topology: Topology,
    table: Ports,
    control_plane: str,
    access: ControlPlaneAccess,
    receivers: Receivers,
    pace: Pace,
) -> Monitoring:
    """What the files are made from. `topology` and `table` know of further instances of services;
    `control_plane`: its "host:port"."""
    both = addresses(table)
    return Monitoring(
        topology.name,
        scraped(topology, table, control_plane),
        own=both[PROMETHEUS],
        alertmanager=both[ALERTMANAGER],
        access=access,
        slos=of_levels(topology.service_levels, topology.name),
        receivers=receivers,
        pace=pace,
    )


def write(layout: Layout, monitoring: Monitoring) -> None:
    """Its files, where both programs read them."""
    _replace(folder(layout), texts_of(monitoring))


def log_files(layout: Layout) -> list[str]:
    """Patterns of all logs of the platform."""
    return [str(layout.root / below / "logs" / "*.log") for below in ("regions/*", "global")]


def follow(layout: Layout, topology: Topology, table: Ports) -> None:
    """The services that the topology has by now are looked at; Prometheus notices by itself."""
    if read(layout) is not None:
        lists = target_files(scraped(topology, table, ""))
        path = f"targets/{SERVICES}.json"
        _replace(folder(layout), {path: lists[path]})


def _replace(below: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        path = below / name
        files.make_folder(path.parent)
        files.replace_file(path, text, durable=False)


def programs(layout: Layout, choice: Choice, table: Ports) -> list[Program]:
    """Both, for the global supervisor, which starts them with itself."""
    here, both = folder(layout), addresses(table)
    data = here / "data"
    for name in (PROMETHEUS, ALERTMANAGER):
        files.make_folder(data / name, mode=0o700)
    commands = {
        PROMETHEUS: (
            choice.prometheus,
            f"--config.file={here}/prometheus.yml",
            f"--storage.tsdb.path={data}/{PROMETHEUS}",
            f"--storage.tsdb.retention.time={KEPT}",
        ),
        ALERTMANAGER: (
            choice.alertmanager,
            f"--config.file={here}/alertmanager.yml",
            f"--storage.path={data}/{ALERTMANAGER}",
            "--cluster.listen-address=",
        ),
    }
    return [
        Program(
            name,
            (*command, f"--web.listen-address={both[name]}", "--log.level=warn"),
            environment={"REGIONCTL_INSTANCE": name},
            directory=here,
            autostart=True,
            priority=950,
        )
        for name, command in commands.items()
    ]
