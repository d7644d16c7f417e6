"""Logs and traces: the OpenTelemetry collector, Loki behind it for lines, Jaeger for spans. Pure.

The collector (its "contrib" distribution) reads the log files and takes the spans that edge,
gateways and services send to the topology's `otlpEndpoint`; a line that was written within a trace
carries its id. No other agent is needed: Loki takes OTLP itself (3.0 and newer), and Jaeger 2 is
configured like a collector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

JSON = dict[str, Any]

LOKI, JAEGER = "http://loki:3100", "jaeger:4317"
KEPT_HOURS = 168
MOST_TRACES = 100_000
# regions/us-east-1/logs/orders-2.us-east-1a.log is of a second instance of orders.
NAMED = r"/(?P<instance>(?P<component>[a-z]\w*(?:-[a-z]\w*)*)(?:-\d+)?(?:\.[^/]+)?)\.log$"
PATH = 'attributes["log.file.path"]'


def files(platform: str, logs: Sequence[str]) -> dict[str, JSON]:
    """Path → document. `logs`: patterns of the platform's log files."""
    return {
        "otel-collector.yml": collector(platform, logs),
        "loki.yml": loki(),
        "jaeger.yml": jaeger(),
    }


def collector(platform: str, logs: Sequence[str]) -> JSON:
    named = [{"key": "service.namespace", "value": platform, "action": "upsert"}]
    return {
        "receivers": {
            "otlp": {"protocols": {"http": {"endpoint": "127.0.0.1:4318"}}},
            "filelog": {
                "include": list(logs),
                "include_file_path": True,
                "start_at": "end",
                "operators": _operators(),
            },
        },
        "processors": {
            "memory_limiter": {"check_interval": "1s", "limit_mib": 256},
            "resource": {"attributes": named},
            "batch": {},
        },
        "exporters": {
            "otlphttp/loki": {"endpoint": f"{LOKI}/otlp"},
            "otlp/jaeger": {"endpoint": JAEGER, "tls": {"insecure": True}},
        },
        "service": {
            "pipelines": {
                "logs": _pipeline("filelog", "otlphttp/loki"),
                "traces": _pipeline("otlp", "otlp/jaeger"),
            }
        },
    }


def _pipeline(receiver: str, exporter: str) -> JSON:
    processors = ["memory_limiter", "resource", "batch"]
    return {"receivers": [receiver], "processors": processors, "exporters": [exporter]}


def _operators() -> list[JSON]:
    """Whose line it is, from its file; and of a line of JSON (`runtime.telemetry.JsonLines`) its
    time, level and trace. Other lines stay as they are."""
    return [
        {"type": "regex_parser", "parse_from": PATH, "regex": NAMED},
        *(
            {"type": "move", "from": f"attributes.{name}", "to": f'resource["{key}"]'}
            for name, key in (
                ("component", "service.name"),
                ("instance", "service.instance.id"),
            )
        ),
        {
            "type": "json_parser",
            "if": 'body startsWith "{"',
            "timestamp": {
                "parse_from": "attributes.at",
                "layout_type": "gotime",
                # A bare Z would be any letter Z, and the time that of the collector's own zone.
                "layout": "2006-01-02T15:04:05.000Z07:00",
            },
            # The collector knows all other names of Python's levels.
            "severity": {"parse_from": "attributes.level", "mapping": {"fatal": "critical"}},
            "trace": {"trace_id": {"parse_from": "attributes.trace"}},
        },
    ]


def loki() -> JSON:
    """One process with its data on its own disk; lines are kept for a week."""
    return {
        "auth_enabled": False,
        "server": {"http_listen_port": 3100},
        "common": {
            "path_prefix": "/loki",
            "replication_factor": 1,
            "storage": {
                "filesystem": {
                    "chunks_directory": "/loki/chunks",
                    "rules_directory": "/loki/rules",
                }
            },
            "ring": {"instance_addr": "127.0.0.1", "kvstore": {"store": "inmemory"}},
        },
        "schema_config": {
            "configs": [
                {
                    "from": "2024-04-01",
                    "store": "tsdb",
                    "object_store": "filesystem",
                    "schema": "v13",
                    "index": {"prefix": "index_", "period": "24h"},
                }
            ]
        },
        "limits_config": {
            "allow_structured_metadata": True,
            "retention_period": f"{KEPT_HOURS}h",
        },
        "compactor": {
            "working_directory": "/loki/compactor",
            "retention_enabled": True,
            "delete_request_store": "filesystem",
        },
    }


def jaeger() -> JSON:
    """One process that keeps spans in memory."""
    store = "memory"
    return {
        "extensions": {
            "jaeger_storage": {"backends": {store: {"memory": {"max_traces": MOST_TRACES}}}},
            "jaeger_query": {
                "storage": {"traces": store},
                "http": {"endpoint": "0.0.0.0:16686"},
            },
        },
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": "0.0.0.0:4317"}}}},
        "processors": {"batch": {}},
        "exporters": {"jaeger_storage_exporter": {"trace_storage": store}},
        "service": {
            "extensions": ["jaeger_storage", "jaeger_query"],
            "pipelines": {
                "traces": {
                    "receivers": ["otlp"],
                    "processors": ["batch"],
                    "exporters": ["jaeger_storage_exporter"],
                }
            },
        },
    }
