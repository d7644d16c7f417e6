"""`regionctl dash` as a program: data on request, text for screen readers, a browser with a key."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

from aiohttp import CookieJar
from aiohttp.test_utils import TestClient, TestServer

from cli.dash import browser
from tests.cli.conftest import Plane
from tests.cli.console import environment

KEY = "the-key"


def test_json_is_the_overview_and_nothing_else(platform: Plane) -> None:
    ended = platform.run("dash", "-o", "json")
    document = json.loads(ended.stdout)
    assert (ended.code, document["kind"], ended.stderr) == (0, "Overview", "")


def test_without_a_terminal_it_says_what_to_type_instead(plane: Plane) -> None:
    ended = plane.run("dash")
    assert ended.code == 5
    assert "regionctl dash --plain" in ended.stderr


def test_plain_text_says_the_last_that_was_known_when_the_control_plane_is_gone(
    platform: Plane,
) -> None:
    with plainly(platform) as first:
        assert first.stdout is not None
        assert first.stdout.readline().startswith("two-regions: ● ALL HEALTHY")
        os.kill(first.pid, signal.SIGINT)
        first.stdout.read()
        assert first.wait(30) == 130
    platform.end()
    with plainly(platform) as second:
        assert second.stdout is not None
        assert second.stdout.readline().startswith("two-regions: ? STALE")
        assert "control plane unreachable" in second.stdout.readline()
        os.kill(second.pid, signal.SIGINT)
        assert "region us-east-1 (primary): ● OK" in second.stdout.read()


def plainly(platform: Plane) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", "dash", "--plain"],
        stdout=subprocess.PIPE,
        text=True,
        env={**environment(platform.home), "XDG_CACHE_HOME": str(platform.home / "cache")},
    )


async def test_a_browser_needs_the_key_and_keeps_it_as_a_cookie() -> None:
    server = TestServer(await browser.application("true", 8400, KEY), host="127.0.0.1")
    local = {"Host": "127.0.0.1:8400"}
    jar = CookieJar(unsafe=True)
    async with TestClient(server, cookie_jar=jar) as client:
        assert (await client.get("/", headers=local)).status == 403
        wrong = await client.get("/", params={"key": "another"}, headers=local)
        assert wrong.status == 403
        right = await client.get("/", params={"key": KEY}, headers=local, allow_redirects=False)
        assert right.status == 303
        assert "SameSite=Strict" in right.headers["Set-Cookie"]
        assert (await client.get("/", headers=local)).status == 200


async def test_other_sites_and_other_names_of_this_machine_are_sent_away() -> None:
    server = TestServer(await browser.application("true", 8400, KEY), host="127.0.0.1")
    async with TestClient(server, cookies={"regionctl-dash-8400": KEY}) as client:
        local = {"Host": "127.0.0.1:8400"}
        assert (await client.get("/", headers=local)).status == 200
        other = {**local, "Origin": "https://elsewhere.example"}
        assert (await client.get("/ws", headers=other)).status == 403
        assert (await client.get("/", headers={"Host": "rebound.example:8400"})).status == 403
