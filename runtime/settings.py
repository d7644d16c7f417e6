"""What a service process is told by its environment. The only reader of the environment.

REGIONCTL_SERVICE    auth | users | orders | payments | inventory | notifications
REGIONCTL_INSTANCE   its id, "orders.us-east-1a"
REGIONCTL_REGION     "us-east-1"
REGIONCTL_ZONE       "a"
REGIONCTL_SHARD_MAP  path of the shard map that is polled
REGIONCTL_SECRETS    path of a JSON object of passwords; what a service does not need is not in it:
                     database (all: the password of the database role that has the service's
                     name); valkey (all: one password); tokenKey (auth: seals the signing keys);
                     gatewayKey, webhookSecret (payments); objectsKey, objectsSecret (payments,
                     notifications); smtpUser, smtpPassword (notifications; empty: no login)
REGIONCTL_CACHE      "host:port" of the region's cache; empty: no cache
REGIONCTL_ENTRY_URL  the address that clients use; also the issuer of tokens
REGIONCTL_PAYMENT_GATEWAY  base URL of the payment gateway
REGIONCTL_SMTP       "host:port" of the mail server
REGIONCTL_SMTP_TLS   none | starttls | tls
REGIONCTL_OBJECTS    base URL of the region's object storage (S3 API)
REGIONCTL_OBJECTS_BUCKET  the one bucket of S3 itself that has everything, in folders, opened by
                     the task's own role, without keys; empty: a bucket for each purpose
REGIONCTL_TLS_CA     path of certificates to trust beside the system's: databases, cache and queue
                     are then asked by TLS only; empty: without TLS, on one machine's loopback
OTEL_EXPORTER_OTLP_ENDPOINT  base URL of an OpenTelemetry collector (OTLP over HTTP); empty: no
                     traces are made
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from runtime.errors import Invalid

DATABASE = "app"


@dataclass(frozen=True)
class Settings:
    service: str
    instance: str
    region: str
    zone: str
    shard_map: Path
    database_password: str = field(repr=False)
    valkey_password: str = field(repr=False)
    cache: tuple[str, int] | None = None
    entry_url: str = "https://127.0.0.1:18001"
    payment_gateway: str = ""
    smtp: tuple[str, int] | None = None
    smtp_tls: str = "none"
    objects: str = ""
    otlp_endpoint: str = ""
    objects_bucket: str = ""
    tls_ca: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    @cached_property
    def trust(self) -> ssl.SSLContext | None:
        """Whom databases, cache and queue must prove to be; None: no TLS. Raises `Invalid`."""
        if not self.tls_ca:
            return None
        context = ssl.create_default_context()
        try:
            context.load_verify_locations(cafile=self.tls_ca)
        except OSError as error:
            raise Invalid(f"REGIONCTL_TLS_CA: {self.tls_ca}: {error}") from error
        return context


def load(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this process. Raises `Invalid`, naming the variable or file at fault."""
    names = ("SERVICE", "INSTANCE", "REGION", "ZONE", "SHARD_MAP", "SECRETS")
    values = {name: environment.get(f"REGIONCTL_{name}", "") for name in names}
    missing = [f"REGIONCTL_{name}" for name, value in values.items() if not value]
    if missing:
        raise Invalid(
            f"The environment lacks {', '.join(missing)}.",
            hint="Services are started by `regionctl up`, which sets them.",
        )
    secrets = _secrets(Path(values["SECRETS"]))
    return Settings(
        service=values["SERVICE"],
        instance=values["INSTANCE"],
        region=values["REGION"],
        zone=values["ZONE"],
        shard_map=Path(values["SHARD_MAP"]),
        database_password=secrets.get("database", ""),
        valkey_password=secrets.get("valkey", ""),
        cache=_address("CACHE", environment),
        entry_url=environment.get("REGIONCTL_ENTRY_URL", "") or "https://127.0.0.1:18001",
        payment_gateway=environment.get("REGIONCTL_PAYMENT_GATEWAY", ""),
        smtp=_address("SMTP", environment),
        smtp_tls=environment.get("REGIONCTL_SMTP_TLS", "") or "none",
        objects=environment.get("REGIONCTL_OBJECTS", ""),
        otlp_endpoint=environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
        objects_bucket=environment.get("REGIONCTL_OBJECTS_BUCKET", ""),
        tls_ca=environment.get("REGIONCTL_TLS_CA", ""),
        secrets=secrets,
    )


def _secrets(path: Path) -> dict[str, str]:
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Invalid(f"REGIONCTL_SECRETS: {path}: {error}") from error
    if not isinstance(document, dict):
        raise Invalid(f"REGIONCTL_SECRETS: {path} is not a JSON object.")
    return document


def _address(name: str, environment: Mapping[str, str]) -> tuple[str, int] | None:
    text = environment.get(f"REGIONCTL_{name}", "")
    if not text:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise Invalid(f"REGIONCTL_{name}: {text!r} is not host:port.")
    return host, int(port)
