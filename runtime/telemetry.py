"""What a service tells about itself: Prometheus metrics, and one JSON line an event on stderr."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

from runtime import tracing
from runtime.machine import Machine

REGISTRY.register(Machine())

REQUESTS = Histogram(
    "regionctl_request_seconds",
    "Time to answer a request",
    ["method", "route", "status"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
RETRIES = Counter(
    "regionctl_database_retries_total", "Database work begun anew", ["database", "reason"]
)
READS = Counter("regionctl_database_reads_total", "Reads by the copy that answered", ["copy"])
CONNECTIONS = Gauge(
    "regionctl_database_connections", "Open connections of the pool", ["server", "state"]
)
CONNECTION_LIMIT = Gauge("regionctl_database_connections_limit", "Pool size", ["server"])
MAP_VERSION = Gauge("regionctl_shard_map_version", "Version of the shard map in use")
CACHE = Counter("regionctl_cache_total", "Cache lookups", ["outcome"])
RELAYED = Counter("regionctl_outbox_relayed_total", "Events written to the stream", ["database"])
CONSUMED = Counter("regionctl_events_consumed_total", "Events handled", ["outcome"])
STREAM_LAG = Gauge(
    "regionctl_stream_lag", "Entries of the stream that the group has not read", ["group"]
)
STREAM_PENDING = Gauge(
    "regionctl_stream_pending", "Entries read by the group and not acknowledged", ["group"]
)

OUTSIDE = Counter(
    "regionctl_outside_calls_total", "Attempts to call an external server", ["server", "outcome"]
)
RECONCILED = Counter(
    "regionctl_payments_reconciled_total", "Payments brought to their end late", ["how"]
)


class JsonLines(logging.Formatter):
    """One JSON object a line; values given as `extra={"data": {...}}` become its members."""

    def __init__(self, instance: str) -> None:
        super().__init__()
        self._instance = instance

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "instance": self._instance,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := tracing.request_id.get():
            line["request"] = request
        if trace := tracing.trace_id():
            line["trace"] = trace
        line.update(getattr(record, "data", {}))
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_json_lines(instance: str) -> None:
    """Every logger of this process writes JSON lines to stderr, save the log of each request:
    health checks would drown the rest of it, and metrics count requests."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(instance))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = name != "uvicorn.access"
    # One line a call to an external server, with its whole URL.
    logging.getLogger("httpx").setLevel(logging.WARNING)
