"""A task on AWS finds on its disk what a process on one machine finds there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from socket import socket

import pytest
from sqlalchemy.engine import make_url

from control_plane import app
from control_plane import settings as control_settings
from infra.aws import container, gateway, images
from infra.aws.spec import platform
from infra.topology import parse, read
from runtime import settings
from runtime.clock import SystemClock, wait_until
from tests.ports import free_port, free_ports

TEXT, SOURCE = read("aws-two-regions")
PLATFORM = platform(parse(TEXT, SOURCE), TEXT)


def told(component: str, folder: Path) -> dict[str, str]:
    """The variables of a task, with its folder elsewhere."""
    region = PLATFORM.waiting[0]
    (task,) = [one for one in region.tasks if one.component == component]
    found = images.environment(PLATFORM, region, task)
    return {name: value.replace(str(images.FOLDER), str(folder)) for name, value in found.items()}


def test_a_service_reads_its_settings_as_it_does_on_one_machine(tmp_path: Path) -> None:
    given = told("payments", tmp_path) | {
        "REGIONCTL_SECRETS_JSON": '{"database": "d", "valkey": "v", "gatewayKey": "g"}',
        "REGIONCTL_CACHE": "cache.example.com:6379",
    }
    metadata = {"AvailabilityZone": "us-west-2b", "TaskARN": "arn:aws:ecs:x:1:task/c/abcdef123456"}
    seen = container.prepare_service(given, metadata)
    assert "REGIONCTL_SECRETS_JSON" not in seen
    found = settings.load(seen)
    assert (found.service, found.region, found.zone) == ("payments", "us-west-2", "b")
    assert found.instance == "payments.us-west-2b.abcdef12"
    assert (found.database_password, found.valkey_password) == ("d", "v")
    assert found.cache == ("cache.example.com", 6379)
    assert found.entry_url == "https://api.shop.example.com"
    assert found.payment_gateway == "https://pay.example.com"
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_the_control_plane_finds_its_topology_and_its_database(tmp_path: Path) -> None:
    secret = {"username": "me", "password": "p@:/ %", "host": "h", "port": "5432", "dbname": "app"}
    given = told("control-plane", tmp_path) | {
        "REGIONCTL_ADMINISTRATOR": json.dumps(secret),
        "REGIONCTL_ROOT": '{"token": "t"}',
        "REGIONCTL_CLIENTS": '{"probe": "of the probe"}',
    }
    seen = container.prepare_control_plane(tmp_path, given)
    assert (tmp_path / "topology.yaml").read_text(encoding="utf-8") == TEXT
    url = make_url(seen["REGIONCTL_DATABASE_URL"])
    assert (url.username, url.password, url.host) == ("me", "p@:/ %", "h")
    assert url.query["ssl"] == "verify-full"
    probe = tmp_path / "control" / "clients" / "probe.json"
    assert json.loads(probe.read_text()) == {
        "client_id": "probe",
        "client_secret": "of the probe",
        "token_url": "https://api.shop.example.com/oauth/token",
    }
    assert (probe.parent.stat().st_mode & 0o777, probe.stat().st_mode & 0o777) == (0o700, 0o600)


async def test_the_control_plane_starts_on_what_was_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite in place of Aurora, and with an AWS that it has no credentials for."""
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    secret = {"username": "u", "password": "p", "host": "h", "port": "5432", "dbname": "app"}
    seen = container.prepare_control_plane(
        tmp_path,
        told("control-plane", tmp_path)
        | {
            "REGIONCTL_ADMINISTRATOR": json.dumps(secret),
            "REGIONCTL_ROOT": '{"token": "made"}',
            "REGIONCTL_CLIENTS": '{"probe": "of the probe"}',
        },
    )
    assert not set(seen) & {"REGIONCTL_ADMINISTRATOR", "REGIONCTL_ROOT", "REGIONCTL_CLIENTS"}
    settings = control_settings.load({**seen, "REGIONCTL_DATABASE_URL": ""})
    application = app.build(settings)
    async with application.router.lifespan_context(application):
        assert application.state.plane.topology == parse(TEXT, SOURCE)
        assert application.state.plane.token == "made"
    assert settings.control_dir.stat().st_mode & 0o777 == 0o700
    assert settings.token_file.stat().st_mode & 0o777 == 0o600


def test_a_gateway_has_the_local_clusters_and_no_route_to_object_storage() -> None:
    found = gateway.bootstrap(node="n", issuer="https://x", port=1, folder=Path("/run"))
    clusters = {one["name"] for one in found["static_resources"]["clusters"]}
    assert clusters == set(PLATFORM.topology.services)
    text = json.dumps(found)
    assert '"cluster": "objects"' not in text
    assert '"/oauth/token"' in text
    assert '"127.0.0.1"' in json.dumps(found["admin"]), "nobody outside asks for the internals"


def test_what_does_not_answer_is_not_well() -> None:
    with closing(socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        assert container.health(f"http://127.0.0.1:{taken.getsockname()[1]}/") == 1


@pytest.mark.process
async def test_a_gateway_serves_by_tls_while_aws_is_away_and_ends_when_told(
    tmp_path: Path,
) -> None:
    port, admin = free_ports(2)
    given = told("gateway", tmp_path)
    document = gateway.bootstrap(node="n", issuer="https://x", port=port, folder=tmp_path)
    document["admin"]["address"]["socket_address"]["port_value"] = admin
    given |= {"REGIONCTL_ENVOY": gateway.packed(document)}
    with running(given) as process:
        url = f"https://127.0.0.1:{port}/health/ready"
        await wait_until(
            SystemClock(),
            lambda: answers(url),
            what="the gateway to answer",
            seconds=60,
            every=0.2,
        )
        assert container.health(url) == 0
        assert process.poll() is None, "without an answer of AWS it goes on"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


async def answers(url: str) -> bool:
    return container.health(url) == 0


@contextmanager
def running(given: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The gateway's task, with an AWS that refuses every connection."""
    aws = {
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        "AWS_MAX_ATTEMPTS": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "infra.aws.container", "run", "gateway"],
        env=os.environ | given | aws,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
