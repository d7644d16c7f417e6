"""All files of the monitoring, by their paths below one folder. Pure.

prometheus.yml rules/*.yml targets/*.json    Prometheus
alertmanager.yml                             Alertmanager
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from infra import slo_prometheus
from infra.observability import alertmanager, alerts, grafana, prometheus
from infra.observability import logs as observed
from infra.observability.model import Pace, Receivers, Target
from infra.observability.prometheus import ControlPlaneAccess
from infra.slo import Slo
from infra.topology_policies import ServiceLevels


@dataclass(frozen=True)
class Monitoring:
    """`own` and `alertmanager` are the addresses ("host:port") of the two programs; `slos` what
    burn-rate rules are made of."""

    platform: str
    targets: tuple[Target, ...]
    own: str
    alertmanager: str
    access: ControlPlaneAccess
    slos: tuple[Slo, ...] = ()
    receivers: Receivers = field(default_factory=Receivers)
    pace: Pace = field(default_factory=Pace)


def files(wanted: Monitoring) -> dict[str, str]:
    """Path → text."""
    config = prometheus.document(
        wanted.platform,
        wanted.pace,
        wanted.access,
        own=wanted.own,
        alertmanager=wanted.alertmanager,
    )
    return {
        "prometheus.yml": text(config),
        "rules/alerts.yml": text(alerts.document(wanted.pace)),
        "rules/slo.yml": text(slo_prometheus.rules(wanted.slos, wanted.pace.scrape)),
        "alertmanager.yml": text(alertmanager.document(wanted.pace, wanted.receivers)),
        **prometheus.target_files(wanted.targets),
    }


def everything(wanted: Monitoring, levels: ServiceLevels, logs: Sequence[str]) -> dict[str, str]:
    """These, and the files of what no platform starts by itself. `logs`: patterns of its logs."""
    more = {
        **grafana.files(levels, f"http://{wanted.own}"),
        **observed.files(wanted.platform, logs),
    }
    return {
        **files(wanted),
        **{
            path: grafana.text(document) if path.endswith(".json") else text(document)
            for path, document in more.items()
        },
    }


def text(document: Mapping[str, Any] | Iterable[Any]) -> str:
    """YAML in the document's own order, one line an expression."""
    return yaml.safe_dump(document, sort_keys=False, width=10_000, allow_unicode=True)
