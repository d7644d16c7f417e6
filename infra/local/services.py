"""The services: how each is run, and which of the secrets it is told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from infra.local import layout as files
from infra.local import quota
from infra.local.ports import HOST
from infra.local.site import Site
from infra.local.supervisor import Program
from infra.needs import EXTERNAL, NEEDS
from infra.topology import MAILBOX, PAYMENT_GATEWAY, InstanceSpec
from runtime.errors import Invalid

# Work that no client waits for gives way to the requests.
PATIENT = frozenset({"payments", "notifications"})
PATIENCE = 19


def program(site: Site, instance: str) -> Program:
    spec = site.spec(instance)
    command = (
        *(sys.executable, "-m", "uvicorn", "runtime.app:create", "--factory"),
        *("--host", HOST, "--port", str(site.port(instance))),
        *("--timeout-keep-alive", "75", "--timeout-graceful-shutdown", "10"),
        *("--no-access-log", "--loop", "uvloop", "--http", "httptools"),
    )
    return Program(
        instance,
        quota.held(site, instance, command),
        environment=_environment(site, spec),
        directory=site.layout.root,
        nice=PATIENCE if spec.component in PATIENT else 0,
    )


def _environment(site: Site, spec: InstanceSpec) -> dict[str, str]:
    """See `runtime.settings` for what each variable means."""
    external = site.topology.external
    given = {
        "REGIONCTL_STATE": str(site.layout.root),
        "REGIONCTL_INSTANCE": spec.id,
        "REGIONCTL_REGION": spec.region,
        "REGIONCTL_ZONE": spec.zone,
        "REGIONCTL_SERVICE": spec.component,
        "REGIONCTL_SHARD_MAP": str(site.layout.shard_map(spec.region)),
        "REGIONCTL_SECRETS": str(site.layout.secrets_of(spec.region, spec.component)),
        "REGIONCTL_CACHE": _address(site, "cache", spec.region),
        "REGIONCTL_ENTRY_URL": site.entry_url,
        "REGIONCTL_SMTP": external.smtp or _address(site, MAILBOX, ""),
        "REGIONCTL_SMTP_TLS": external.smtp_tls if external.smtp else "none",
        "OTEL_EXPORTER_OTLP_ENDPOINT": site.topology.otlp_endpoint,
    }
    gateway = _address(site, PAYMENT_GATEWAY, "")
    objects = _address(site, "objects", spec.region)
    given["REGIONCTL_PAYMENT_GATEWAY"] = external.payment_gateway or (
        gateway and f"http://{gateway}"
    )
    given["REGIONCTL_OBJECTS"] = objects and f"http://{objects}"
    return {name: value for name, value in given.items() if value}


def _address(site: Site, component: str, region: str) -> str:
    """Where the first instance of `component` listens; empty when there is none."""
    found = site.topology.instances(component=component, region=region)
    return f"{HOST}:{site.port(found[0].id)}" if found else ""


def write_secrets(site: Site, region: str) -> None:
    """Each service of `region` has a file of what it needs to know, and nothing more.

    Raises `Invalid` when the file of the external systems' secrets cannot be read.
    """
    known = vars(site.secrets) | _external(site.topology.external.secrets)
    passwords = site.secrets.databases()
    for component in site.topology.services:
        wanted = ("valkey", *NEEDS.get(component, ()))
        document = {name: known[name] for name in wanted if name in known}
        document["database"] = passwords[component]
        files.replace_file(site.layout.secrets_of(region, component), json.dumps(document))


def _external(path: str) -> dict[str, str]:
    if not path:
        return {}
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as error:
        raise Invalid(
            f"external.secrets: {path}: {error}.",
            hint=f"It must be a JSON object with some of {', '.join(EXTERNAL)}.",
        ) from error
    return {name: str(document[name]) for name in EXTERNAL if name in document}
