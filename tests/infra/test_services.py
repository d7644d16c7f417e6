"""What each service and stand-in is told, and that it is told nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra import oauth_clients
from infra.local import clients, layout, peers, ports, services
from infra.local.layout import Layout
from infra.local.site import Site
from infra.needs import NEEDS
from infra.topology import load
from infra.topology_policies import ExternalSpec
from runtime import settings
from runtime.errors import Invalid

REGION = "us-west-2"
Make = Callable[..., Site]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def site(**changes: Any) -> Site:
        topology = replace(load("two-regions"), **changes)
        layout.create(tmp_path, topology=topology.name, document="", port_offset=0)
        paths = Layout(tmp_path)
        paths.etc(REGION).mkdir(parents=True, exist_ok=True)
        known = layout.read_secrets(paths)
        return Site(topology, paths, ports.table(topology), known, None, Path("/nowhere"))

    return site


def loaded(site: Site, service: str) -> settings.Settings:
    """The settings that a process of `service` would find."""
    services.write_secrets(site, REGION)
    return settings.load(services.program(site, f"{service}.{REGION}a").environment)


@pytest.mark.parametrize("service", load("two-regions").services)
def test_a_service_is_told_the_secrets_that_it_needs_and_no_others(
    make: Make, service: str
) -> None:
    told = loaded(make(), service)
    known = {"database", "valkey", *NEEDS.get(service, ())} - {"smtpUser", "smtpPassword"}
    assert set(told.secrets) == known
    assert (told.service, told.region, told.zone) == (service, REGION, "a")


def test_a_file_of_secrets_is_for_its_owner_alone(make: Make) -> None:
    site = make()
    services.write_secrets(site, REGION)
    clients.write(site.layout, site.secrets, site.entry_url)
    files = [*site.layout.etc(REGION).iterdir(), *(site.layout.control / "clients").iterdir()]
    assert len(files) == 6 + 2
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_a_service_finds_the_stand_ins_and_the_store_of_its_region(make: Make) -> None:
    site = make()
    told = loaded(site, "payments")
    table = site.ports
    assert told.entry_url == "https://127.0.0.1:18001"
    assert told.payment_gateway == f"http://127.0.0.1:{table.instances['payment-gateway']}"
    assert told.smtp == ("127.0.0.1", table.instances["mailbox"])
    assert told.smtp_tls == "none"
    assert told.objects == f"http://127.0.0.1:{table.instances['objects.us-west-2a']}"
    assert told.cache == ("127.0.0.1", table.instances["cache.us-west-2a"])
    assert told.otlp_endpoint == ""


def test_systems_of_somebody_else_are_found_by_the_addresses_and_secrets_given(
    make: Make, tmp_path: Path
) -> None:
    keys = tmp_path / "external.json"
    keys.write_text(json.dumps({"gatewayKey": "k", "smtpUser": "u", "smtpPassword": "p", "x": 1}))
    external = ExternalSpec("https://pay.example.com", "mail.example.com:587", "tls", str(keys))
    site = make(external=external, otlp_endpoint="http://127.0.0.1:4318")
    told = loaded(site, "notifications")
    assert (told.smtp, told.smtp_tls) == (("mail.example.com", 587), "tls")
    assert (told.secrets["smtpUser"], told.secrets["smtpPassword"]) == ("u", "p")
    assert "x" not in told.secrets
    assert told.otlp_endpoint == "http://127.0.0.1:4318"
    payments = loaded(site, "payments")
    assert payments.payment_gateway == "https://pay.example.com"
    assert payments.secrets["gatewayKey"] == "k"
    assert payments.secrets["webhookSecret"] == site.secrets.webhookSecret


def test_external_secrets_that_cannot_be_read_are_told(make: Make, tmp_path: Path) -> None:
    for name, text in (("none.json", None), ("list.json", "[]"), ("odd.json", "{")):
        if text is not None:
            (tmp_path / name).write_text(text)
        site = make(external=ExternalSpec(secrets=str(tmp_path / name)))
        with pytest.raises(Invalid, match=name):
            services.write_secrets(site, REGION)


def test_only_work_that_no_client_waits_for_gives_way(make: Make) -> None:
    site = make()
    patient = {
        service
        for service in site.topology.services
        if services.program(site, f"{service}.{REGION}a").nice
    }
    assert patient == {"payments", "notifications"}


def test_a_client_logs_in_with_the_secret_whose_hash_the_catalog_has(make: Make) -> None:
    site = make()
    clients.write(site.layout, site.secrets, site.entry_url)
    document = json.loads(site.layout.client("probe").read_text())
    assert document["token_url"] == "https://127.0.0.1:18001/oauth/token"
    role, digest = clients.hashes(site.secrets)[document["client_id"]]
    assert role == "service"
    assert digest == oauth_clients.digest(document["client_secret"])


def test_the_payment_gateway_is_given_its_secrets_and_the_way_back(make: Make) -> None:
    site = make()
    peers.prepare(site, "payment-gateway")
    program = peers.program(site, "payment-gateway")
    words = dict(zip(program.command[3::2], program.command[4::2], strict=True))
    assert words["--webhook-url"] == "https://127.0.0.1:18001/api/v1/payments/webhook"
    assert Path(words["--webhook-ca"]).exists()
    assert set(json.loads(Path(words["--secrets"]).read_text())) == {"gatewayKey", "webhookSecret"}
    assert program.autostart
    assert program.autorestart
