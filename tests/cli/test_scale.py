"""regionctl scale: a service gets more instances and fewer, and the list says why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from runtime.errors import Exit
from tests.cli.conftest import Plane, control_plane


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with control_plane(tmp_path_factory.mktemp("scale"), automatic=False) as plane:
        plane.provision()
        yield plane


def desired(platform: Plane, service: str) -> dict[str, int]:
    """By zone."""
    found: dict[str, Any] = json.loads(platform.run("scale", "-o", "json").stdout)
    assert found["kind"] == "Scaling"
    assert all(each["running"] == each["desired"] for each in found["items"])
    return {each["zone"]: each["desired"] for each in found["items"] if each["service"] == service}


def test_a_service_is_scaled_in_each_zone_that_serves_or_in_one(platform: Plane) -> None:
    ended = platform.run("scale", "orders", "--to", "3", "--dry-run")
    assert (ended.code, "orders.us-east-1b: 3" in ended.stdout) == (0, True)
    assert desired(platform, "orders") == {"us-east-1a": 1, "us-east-1b": 1, "us-west-2a": 1}
    ended = platform.run("scale", "orders", "--to", "3", "--reason", "a sale")
    assert ended.code == 0, ended
    assert desired(platform, "orders") == {"us-east-1a": 3, "us-east-1b": 3, "us-west-2a": 1}
    status = platform.run("status", "-o", "name").stdout.split()
    assert {"orders-2.us-east-1a", "orders-3.us-east-1b"} <= set(status)
    assert "nothing to do" in platform.run("scale", "orders", "--to", "3").stderr
    ended = platform.run("scale", "set", "orders", "--zone", "us-east-1b", "--to", "1")
    assert ended.code == 0, ended
    assert desired(platform, "orders") == {"us-east-1a": 3, "us-east-1b": 1, "us-west-2a": 1}
    audit = json.loads(platform.run("audit", "-o", "json").stdout)["items"]
    assert ("scale", "orders", "a sale") in {
        (each["action"], each["target"], each["reason"]) for each in audit
    }


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("orders --to 9", Exit.USAGE, "1 to 4 instances"),
        ("order --to 2", Exit.USAGE, "no service 'order'"),
        ("orders --to 2 --zone us-east-1c", Exit.USAGE, "Zones: us-east-1a"),
        ("orders", Exit.USAGE, "--to"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(
    platform: Plane, words: str, code: int, said: str
) -> None:
    ended = platform.run("scale", *words.split())
    assert ended.code == code, ended
    assert said in ended.stderr


def test_the_list_says_that_nothing_scales_by_itself_here(platform: Plane) -> None:
    ended = platform.run("scale")
    assert ended.code == 0
    assert "by hand only: scaling.automatic is false" in ended.stdout
    assert ended.stdout.count("us-east-1a") == 6


def test_scaling_is_held_for_a_while_and_released(platform: Plane) -> None:
    for words in ("hold --for 30m --reason measuring", "release"):
        ended = platform.run("scale", *words.split())
        assert ended.code == 0, ended
        assert "hold-scaling" in ended.stdout
    assert platform.run("scale", "hold", "--for", "9d").code == Exit.USAGE
    assert platform.run("scale", "hold", "--for", "soon").code == Exit.USAGE
