"""`up --with monitoring`: what it needs, what it keeps, and that Prometheus gets in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from control_plane import monitored, monitoring_files
from control_plane.listen import Listen
from control_plane.settings import monitoring_choices
from infra.local import layout, monitoring, ports
from infra.local.layout import Layout
from infra.local.monitoring import ALERTMANAGER, PROMETHEUS, Choice
from infra.local.supervisor import Supervisor
from infra.observability.model import Receivers
from infra.topology import load
from runtime.errors import Invalid, Refused
from tests.control_plane.served import serving, state_dir
from tests.infra.observability.tools import program, run
from tests.ports import free_ports, neighbours

TOPOLOGY = load("two-regions")


def test_a_program_that_is_missing_is_refused_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    for name in (PROMETHEUS, ALERTMANAGER):
        with pytest.raises(Refused) as refused:
            monitoring.find(name, None, tmp_path)
        assert "apt-get install prometheus prometheus-alertmanager" in str(refused.value.hint)
        with pytest.raises(Refused, match="is not a program"):
            monitoring.find(name, str(tmp_path), tmp_path)
    given = tmp_path / "prometheus-alertmanager"
    given.write_text("#!/bin/sh\n")
    given.chmod(0o755)
    assert monitoring.find(ALERTMANAGER, None, tmp_path) == str(given)


def test_a_platform_in_memory_has_nothing_to_be_looked_at() -> None:
    memory = replace(TOPOLOGY, provider="memory")
    assert monitored.asked(memory, None) is None
    with pytest.raises(Refused):
        monitored.asked(memory, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SCRAPE_SECONDS", "0"),
        ("SCRAPE_SECONDS", "1.5"),
        ("SCRAPE_SECONDS", "soon"),
        ("ALERT_WEBHOOK", "example.com"),
        ("PAGERDUTY_KEY_FILE", "/nowhere/key"),
        ("SLACK_URL_FILE", "/nowhere/url"),
    ],
)
def test_a_wrong_choice_is_said_by_its_variable(name: str, value: str) -> None:
    with pytest.raises(Invalid, match=f"REGIONCTL_{name}"):
        monitoring_choices({f"REGIONCTL_{name}": value})


def test_what_was_chosen_is_gone_on_with_until_it_is_given_up(tmp_path: Path) -> None:
    paths, table = Layout(tmp_path), ports.table(TOPOLOGY)
    assert monitoring.read(paths) is None
    assert monitored.programs(paths, TOPOLOGY, table, Listen()) == []
    choice = Choice("/bin/a", "/bin/b", Receivers(webhook_url="http://127.0.0.1:9/"), 5)
    monitored.choose(paths, table, True, choice)
    monitored.choose(paths, table, None, None)
    assert monitoring.read(paths) == choice
    names = [each.name for each in monitored.programs(paths, TOPOLOGY, table, Listen())]
    assert names == [PROMETHEUS, ALERTMANAGER]
    monitored.choose(paths, table, False, None)
    assert monitored.programs(paths, TOPOLOGY, table, Listen()) == []


def test_an_instance_that_was_added_is_looked_at_without_another_up(tmp_path: Path) -> None:
    paths, table = Layout(tmp_path), ports.table(TOPOLOGY)
    monitoring.choose(paths, Choice("/bin/a", "/bin/b"))
    monitored.programs(paths, TOPOLOGY, table, Listen())
    more = TOPOLOGY.with_instances("orders", "us-east-1a", 2)
    monitoring.follow(paths, more, ports.table(more))
    seen = json.loads((monitoring.folder(paths) / "targets" / "services.json").read_text())
    names = {each["labels"]["instance"]: each["targets"] for each in seen}
    assert names["orders-2.us-east-1a"] != names["orders.us-east-1a"]


def test_the_files_for_elsewhere_are_accepted_and_say_where_secrets_go(tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = monitoring_files.write("two-regions", tmp_path / "state", 0, out)
    assert {"loki.yml", "jaeger.yml", "otel-collector.yml", "rules/slo.yml"} <= set(made["files"])
    assert "/etc/alertmanager/secrets/pagerduty-key" in (out / "README.txt").read_text()
    (out / "secrets").mkdir()
    (out / "secrets" / "control-plane.token").write_text("secret")
    run("promtool", "check", "config", "prometheus.yml", folder=out)
    run("amtool", "check-config", "alertmanager.yml", folder=out)


@pytest.mark.process
async def test_both_programs_come_up_and_prometheus_is_let_in_as_a_viewer(tmp_path: Path) -> None:
    root = tmp_path / "root"
    state_dir(root)
    paths = Layout(root)
    table = replace(ports.table(TOPOLOGY), control=neighbours(2), supervisor=free_ports(1)[0])
    monitoring.choose(paths, Choice(program(PROMETHEUS), program(ALERTMANAGER)))
    password = layout.read_secrets(paths).supervisor
    supervisor = Supervisor(paths.folder(""), table.supervisor, password, root)
    async with serving(root, table.control) as (address, plane):
        supervisor.write(monitored.programs(paths, TOPOLOGY, table, Listen()))
        try:
            await supervisor.start()
            urls = await monitored.settle(paths, supervisor, table, Listen())
            assert set(urls) == {PROMETHEUS, ALERTMANAGER}
            token = monitoring.token_file(paths).read_text()
            assert await monitored.settle(paths, supervisor, table, Listen()) == urls
            assert monitoring.token_file(paths).read_text() == token
            known = [(each.name, each.role) for each in await plane.tokens.list()]
            assert known == [("prometheus", "viewer")]
            bearer = {"Authorization": f"Bearer {token}"}
            async with httpx.AsyncClient(headers=bearer) as client:
                assert (await client.get(f"{address}/metrics")).status_code == 200
                monitored.choose(paths, table, False, None)
                supervisor.write([])
                await supervisor.update()
                assert await monitored.settle(paths, supervisor, table, Listen()) == {}
                assert (await client.get(f"{address}/metrics")).status_code == 401
            assert not monitoring.folder(paths).exists()
        finally:
            await supervisor.shutdown()
