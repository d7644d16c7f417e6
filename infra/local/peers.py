"""Stand-ins for systems of somebody else: a payment gateway and a mail server.

They stand in no region, so that a lost region takes none of them along. The global supervisor
runs them; what they have acknowledged is in a file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from infra.local import certificates
from infra.local import layout as files
from infra.local.ports import HOST
from infra.local.services import PATIENCE
from infra.local.site import Site
from infra.local.supervisor import Program
from infra.topology import MAILBOX, PAYMENT_GATEWAY

WEBHOOK_PATH = "/api/v1/payments/webhook"
HEALTH = "/health/live"


def _state(site: Site, instance: str) -> Path:
    return site.layout.data("", instance) / "state.db"


def http_port(site: Site, instance: str) -> int:
    return site.ports.parts.get(instance, {}).get("http", site.port(instance))


def prepare(site: Site, instance: str) -> None:
    """Its folder and, for the payment gateway, its secrets and the authority of the edge."""
    files.make_folder(_state(site, instance).parent, mode=0o700)
    if instance == PAYMENT_GATEWAY:
        certificates.ensure(site.layout.ca)
        files.make_folder(site.layout.etc(""), mode=0o700)
        known = {name: vars(site.secrets)[name] for name in ("gatewayKey", "webhookSecret")}
        files.replace_file(site.layout.secrets_of("", instance), json.dumps(known))


def program(site: Site, instance: str) -> Program:
    state = ("--state", str(_state(site, instance)))
    if instance == MAILBOX:
        module = "mailbox"
        ports = ("--smtp-port", str(site.port(instance)))
        arguments: tuple[str, ...] = (*ports, "--http-port", str(http_port(site, instance)), *state)
    else:
        module = "payment_gateway"
        arguments = (
            *("--port", str(site.port(instance)), *state),
            *("--secrets", str(site.layout.secrets_of("", instance))),
            *("--webhook-url", site.entry_url + WEBHOOK_PATH),
            *("--webhook-ca", str(site.layout.ca / "ca.pem")),
        )
    return Program(
        instance,
        (sys.executable, "-m", f"runtime.peers.{module}", *arguments),
        environment={"REGIONCTL_INSTANCE": instance, "REGIONCTL_REGION": ""},
        directory=site.layout.root,
        autostart=True,
        priority=800,
        # They stand for machines elsewhere.
        nice=PATIENCE,
    )


def address(site: Site, instance: str) -> str:
    """Where people and tests reach its HTTP side."""
    return f"http://{HOST}:{http_port(site, instance)}"
