"""Grafana's files: dashboards as it keeps them, and what provisions them with sources. Pure."""

from __future__ import annotations

import json
from typing import Any

from infra.observability.dashboards import Dashboard, Panel, dashboards
from infra.topology_policies import ServiceLevels

JSON = dict[str, Any]
METRICS, LOGS, TRACES = "prometheus", "loki", "jaeger"
COLUMNS, HEIGHT, WIDTH = 24, 8, 8


def files(levels: ServiceLevels, url: str) -> dict[str, Any]:
    """Path → document: dashboards, and what Grafana reads at its start (`/etc/grafana`). `url`:
    Prometheus'."""
    provider = {
        "name": "regionctl",
        "type": "file",
        "allowUiUpdates": False,
        "options": {"path": "/etc/grafana/dashboards"},
    }
    return {
        "grafana/provisioning/datasources/regionctl.yml": {
            "apiVersion": 1,
            "datasources": [
                _source(METRICS, url),
                _source(LOGS, "http://loki:3100"),
                _source(TRACES, "http://jaeger:16686"),
            ],
        },
        "grafana/provisioning/dashboards/regionctl.yml": {"apiVersion": 1, "providers": [provider]},
        **{f"grafana/dashboards/{each.uid}.json": document(each) for each in dashboards(levels)},
    }


def _source(kind: str, url: str) -> JSON:
    return {
        "name": kind.capitalize(),
        "uid": kind,
        "type": kind,
        "access": "proxy",
        "url": url,
        "isDefault": kind == METRICS,
    }


def document(dashboard: Dashboard) -> JSON:
    """The dashboard as Grafana keeps it (JSON model, schema version 39)."""
    region = {
        "name": "region",
        "type": "query",
        "datasource": {"type": METRICS, "uid": METRICS},
        "query": "label_values(up, region)",
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "current": {"text": "All", "value": "$__all"},
    }
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["regionctl"],
        "schemaVersion": 39,
        "timezone": "utc",
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [region] if dashboard.regions else []},
        "panels": [_panel(place, each) for place, each in enumerate(dashboard.panels)],
    }


def _panel(place: int, panel: Panel) -> JSON:
    across = COLUMNS // WIDTH
    source = {"type": METRICS, "uid": METRICS}
    return {
        "id": place + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": source,
        "gridPos": {
            "x": place % across * WIDTH,
            "y": place // across * HEIGHT,
            "w": WIDTH,
            "h": HEIGHT,
        },
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + n), "datasource": source, "expr": expr, "legendFormat": legend}
            for n, (expr, legend) in enumerate(panel.lines)
        ],
    }


def _field(panel: Panel) -> JSON:
    steps: list[JSON] = [{"color": "red" if panel.below else "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "green" if panel.below else "red", "value": panel.limit})
    return {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": steps},
        "custom": {"thresholdsStyle": {"mode": "off" if panel.limit is None else "line"}},
    }


def text(document: JSON) -> str:
    return json.dumps(document, indent=1)
