"""regionctl token and audit, as a person meets them."""

from __future__ import annotations

import json

import pytest

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
