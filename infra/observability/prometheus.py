"""prometheus.yml and the lists of targets beside it. Pure.

Targets are read from files (`file_sd_configs`), which Prometheus watches: what a platform gains or
loses is known by replacing one of them, without a reload.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from infra.observability.model import (
    CONTROL_PLANE,
    GATEWAYS,
    JOBS,
    SERVICES,
    Pace,
    Target,
)
from infra.slo import duration
from infra.topology import EDGE

JSON = dict[str, Any]
ALERTMANAGER = "alertmanager"
PROMETHEUS = "prometheus"

# Of Envoy's several thousand series, those that rules and dashboards use.
ENVOY_SERIES = (
    r"http\.(edge|gateway)\.downstream_rq_(completed|[1-5]xx|time|active)",
    r"cluster\.[^.]+\.external\.upstream_rq_(completed|[1-5]xx|time)",
    r"cluster\.[^.]+\.(upstream_rq_retry|membership_(healthy|total))",
    r"server\.(uptime|memory_physical_size|days_until_first_cert_expiring)",
)


@dataclass(frozen=True)
class ControlPlaneAccess:
    """How Prometheus may ask the control plane: `token_file` has a token of the role viewer,
    `certificate_file` the certificate that it shows, `server_name` a name in it; both "" when it
    speaks plain HTTP (on loopback).
    """

    token_file: str
    certificate_file: str = ""
    server_name: str = ""


def document(
    platform: str,
    pace: Pace,
    access: ControlPlaneAccess,
    *,
    own: str,
    alertmanager: str,
) -> JSON:
    """prometheus.yml. `own` and `alertmanager` are their addresses ("host:port"); paths in it are
    relative to the file itself."""
    return {
        "global": {
            "scrape_interval": duration(pace.scrape),
            "scrape_timeout": duration(min(10.0, pace.scrape)),
            "evaluation_interval": duration(pace.evaluate),
            "external_labels": {"platform": platform},
        },
        "rule_files": ["rules/*.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [
            _job(SERVICES),
            *(_envoys(job) for job in (GATEWAYS, EDGE)),
            _control_plane(access),
            *(_fixed(name, at) for name, at in ((PROMETHEUS, own), (ALERTMANAGER, alertmanager))),
        ],
    }


def _job(name: str) -> JSON:
    return {"job_name": name, "file_sd_configs": [{"files": [f"targets/{name}.json"]}]}


def _envoys(job: str) -> JSON:
    only = f"^({'|'.join(ENVOY_SERIES)})$"
    return {**_job(job), "metrics_path": "/stats/prometheus", "params": {"filter": [only]}}


def _control_plane(access: ControlPlaneAccess) -> JSON:
    job = {**_job(CONTROL_PLANE), "authorization": {"credentials_file": access.token_file}}
    if access.certificate_file:
        tls = {"ca_file": access.certificate_file}
        if access.server_name:
            tls["server_name"] = access.server_name
        job |= {"scheme": "https", "tls_config": tls}
    return job


def _fixed(name: str, address: str) -> JSON:
    labels = {"instance": name, "component": name}
    return {"job_name": name, "static_configs": [{"targets": [address], "labels": labels}]}


def target_files(targets: Iterable[Target]) -> dict[str, str]:
    """File name → the targets of one job."""
    found: dict[str, list[JSON]] = {job: [] for job in JOBS}
    for each in targets:
        found[each.job].append({"targets": [each.address], "labels": each.labels()})
    return {f"targets/{job}.json": json.dumps(rows, indent=1) for job, rows in found.items()}
