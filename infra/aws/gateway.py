"""Envoy of a region on AWS: the local gateway's own configuration, with what must differ. Pure.

The routes, the token check, clusters, retries, health checks, outlier ejection, limits and problem
documents are those of `infra/local`. Servers are in one file a service here too, which the task
itself keeps up to date (`infra/aws/container.py`). What differs:
- the listener is on all addresses, by TLS with a certificate that the task makes for itself at its
  start: the load balancer encrypts and does not look who answers;
- a client's address is what CloudFront wrote, behind which the load balancer wrote CloudFront's;
- invoices are signed for S3's own address, so there is no route for them;
- listener and clusters are in the bootstrap: nothing changes them while a task lives.
"""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path

from infra.local import envoy_config as config
from infra.local import envoy_gateway as gateway
from infra.local import envoy_listener as listeners
from infra.local import envoy_replies as replies
from infra.local.envoy_config import JSON

ADMIN_PORT = 9901
# CloudFront appends the client's address to X-Forwarded-For, the load balancer CloudFront's.
HOPS = 2
SERVICES = tuple(sorted(gateway.SERVICES))
CERTIFICATE, KEY = "tls/edge.pem", "tls/edge.key"
ANY_ADDRESS = "0.0.0.0"  # noqa: S104  # nosec B104 (inside its security group)
CLIENT = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"


def bootstrap(*, node: str, issuer: str, port: int, folder: Path) -> JSON:
    """The whole configuration. Certificate, key and the servers' addresses are in `folder`."""
    found = config.bootstrap(folder, node, "gateway", ADMIN_PORT)
    del found["dynamic_resources"], found["bootstrap_extensions"]
    table = listeners.route_table("gateway", _routes(), {"request_headers_to_add": _client()})
    del table["@type"]
    listener = listeners.listener(
        "gateway",
        port,
        table,
        edge=False,
        filters=[gateway.token_check(issuer)],
        mappers=[*replies.token_replies(), *replies.local_replies()],
        tls=config.tls(folder / CERTIFICATE, folder / KEY),
    )
    del listener["@type"]
    listener["address"] = config.address(ANY_ADDRESS, port)
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    manager |= {"use_remote_address": True, "xff_num_trusted_hops": HOPS}
    found["static_resources"] = {
        "listeners": [listener],
        "clusters": [_cluster(service, folder) for service in SERVICES],
    }
    return found


def endpoints(folder: Path, service: str) -> Path:
    """The file with the servers of `service`."""
    return folder / f"eds-{service}.json"


def packed(document: JSON) -> str:
    """The document as a variable of the environment: some 6 KB of base64 instead of 43 KB."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def _routes() -> list[JSON]:
    """Those of the local gateway, without the region's object store."""
    return [
        route
        for route in gateway.routes()
        if route.get("route", {}).get("cluster") != gateway.OBJECTS
    ]


def _client() -> list[JSON]:
    """Behind the gateway the last entry of X-Forwarded-For is the client's address."""
    return replies.set_headers({"x-forwarded-for": CLIENT})


def _cluster(service: str, folder: Path) -> JSON:
    found = config.cluster(service, endpoints(folder, service), config.SERVICE_HEALTH)
    del found["@type"]
    return found
