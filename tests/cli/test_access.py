"""regionctl token and audit, as a person meets them."""

from __future__ import annotations

import json

import pytest

from control_plane import audit_file
from tests.cli.conftest import Plane

pytestmark = pytest.mark.process


def test_a_token_is_shown_once_and_what_it_does_is_in_the_log(platform: Plane) -> None:
    made = platform.run("token", "create", "ada", "--role", "viewer", "--expires", "30d")
    assert made.code == 0, made.stderr
    text = made.stdout.strip()
    assert text.startswith("rct_")
    assert text not in made.stderr
    assert "not shown again" in made.stderr
    listed = platform.run("token", "list", "-o", "json")
    [token] = json.loads(listed.stdout)["items"]
    assert (token["name"], token["role"], token["createdBy"]) == ("ada", "viewer", "root")
    assert text.rpartition("_")[2] not in listed.stdout

    file = platform.home / "ada.token"
    file.write_text(made.stdout)
    reader = {"REGIONCTL_TOKEN_FILE": str(file)}
    assert platform.run("status", "-o", "name", env=reader).code == 0
    refused = platform.run("switchover", "run", "s1", "--yes", env=reader)
    assert refused.code == 3
    assert "needs the role operator" in refused.stderr
    revoked = platform.run("token", "revoke", token["id"], "--yes", "--reason", "done")
    assert revoked.code == 0, revoked.stderr
    gone = platform.run("status", env=reader)
    assert gone.code == 3
    assert "was revoked" in gone.stderr

    log = json.loads(platform.run("audit", "-o", "json").stdout)["items"]
    told = [(entry["actor"], entry["kind"], entry["action"], entry["target"]) for entry in log]
    assert told[-4:] == [
        ("root", "asked", "token create", "ada"),
        ("ada", "refused", "switchover", "s1"),
        ("root", "asked", "token revoke", "ada"),
        ("ada", "refused", "authenticate", "/v1/status"),
    ]
    assert all(text not in str(entry) for entry in log)
    verified = platform.run("audit", "--verify")
    assert (verified.code, "whole" in verified.stdout) == (0, True)


def test_the_log_has_what_was_done_without_the_control_plane_too(platform: Plane) -> None:
    file = platform.state / audit_file.NAME
    with audit_file.recorded(file, "up", "two-regions", "a new platform"):
        pass
    log = json.loads(platform.run("audit", "-o", "json").stdout)["items"]
    assert [entry["at"] for entry in log] == sorted(entry["at"] for entry in log)
    mine = [(each["kind"], each["action"]) for each in log if each["log"] == "up"]
    assert mine == [("asked", "up"), ("ended", "up")]
    assert {"control-plane", "up"} == {each["log"] for each in log}
    assert "up:2" in platform.run("audit", "-n", "1").stdout
    assert json.loads(platform.run("audit", "--operation", "op-1", "-o", "json").stdout)["items"]
    verified = json.loads(platform.run("audit", "--verify", "-o", "json").stdout)
    assert verified["files"]["up"]["entries"] == 2
    file.write_text(file.read_text().replace("a new platform", "another"))
    forged = platform.run("audit", "--verify")
    assert (forged.code, "audit log (up) is broken at entry 1" in forged.stderr) == (9, True)


def test_an_operation_is_refused_when_the_platform_is_not_what_was_looked_at(
    platform: Plane,
) -> None:
    plan = platform.run("switchover", "run", "s1", "--dry-run", "-o", "json")
    seen = json.loads(plan.stdout)["generation"]
    again = ("switchover", "run", "s1", "--yes", "--expect-generation", str(seen))
    assert platform.run(*again).code == 0
    late = platform.run(*again)
    assert late.code == 5
    assert "generation" in late.stderr
