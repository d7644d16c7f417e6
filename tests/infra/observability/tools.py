"""Prometheus' and Alertmanager's own programs, and the monitoring files of the default topology."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from infra.observability.files import Monitoring, files
from infra.observability.model import CONTROL_PLANE, Pace, Receivers, targets
from infra.observability.prometheus import ControlPlaneAccess
from infra.slo import of_levels
from infra.topology import Topology, load

ROOT = Path(__file__).resolve().parents[3]


def program(name: str) -> str:
    """Its path; skips the test when `make tools` could not bring it."""
    found = shutil.which(name) or shutil.which(name, path=str(ROOT / ".tools" / "bin"))
    if found is None:
        pytest.skip(f"{name} is not here: make tools brings it where there is apt-get")
    return found


def run(name: str, *words: str, folder: Path) -> str:
    """What the program says; fails the test when it is not content."""
    done = subprocess.run(
        [program(name), *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def addresses(topology: Topology) -> dict[str, str]:
    names = [spec.id for spec in topology.by_id.values()]
    ports = {name: f"127.0.0.1:{number}" for number, name in enumerate(names, 20000)}
    return {**ports, CONTROL_PLANE: "127.0.0.1:18000"}


def monitoring(receivers: Receivers | None = None, pace: Pace | None = None) -> Monitoring:
    topology = load("two-regions")
    return Monitoring(
        topology.name,
        targets(topology, addresses(topology)),
        own="127.0.0.1:17998",
        alertmanager="127.0.0.1:17999",
        access=ControlPlaneAccess("secrets/control-plane.token"),
        slos=of_levels(topology.service_levels, topology.name),
        receivers=receivers or Receivers(),
        pace=pace or Pace(),
    )


def write(folder: Path, wanted: Monitoring) -> Path:
    """The files, and a secret in each file that they name."""
    secrets = [wanted.access.token_file, wanted.access.certificate_file]
    secrets += [wanted.receivers.pagerduty_key_file, wanted.receivers.slack_url_file]
    texts = {**files(wanted), **{name: "secret" for name in secrets if name}}
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
