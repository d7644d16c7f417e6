"""Whatever is sent to the API, it answers with a document and never with a defect (HTTP 500)."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from inspect import Parameter, signature
from pathlib import Path
from random import Random

from control_plane import arguments
from control_plane.api import VERBS
from control_plane.app import build
from control_plane.client import Client
from control_plane.settings import Settings
from runtime.errors import Problem
from tests.control_plane.platform import Platform
from tests.control_plane.served import TOKEN, served, state_dir

ENDLESS = ("/v1/events", "/v1/operations/{id}/events")
"""Streams: an answer that has no end has no schema to be checked by, and would not let us go on.
`test_access` asks them too."""
WORDS = ("s1", "catalog", "us-east-1", "us-west-2", "s1.us-east-1a", "op-1", "", "x", "2026-01-01")
CHOICES = ("new", "in-place", "full", "kill", "0/0", "database-failure", "reshard")
VALUES = (*WORDS, *CHOICES, 0, 1, -1, 3, 10**30, 0.5, 1e308, True, False, None, [], ["s1"], {})


def description(folder: Path) -> Path:
    """What the API says of itself, and besides which verbs there are."""
    document = build(Settings(Path("/nonexistent"), "", 1)).openapi()
    for path in ENDLESS:
        del document["paths"][path]
    [verb] = document["paths"]["/v1/plans/{verb}"]["post"]["parameters"]
    operation = document["components"]["schemas"]["OperationRequest"]["properties"]["verb"]
    for schema in (verb["schema"], operation):
        # Provisioned it stays: a platform that is decommissioned answers nothing but "not there".
        schema["enum"] = sorted(VERBS.keys() - {"decommission"})
    # That an unknown method is answered with 405 is the router's work, and `test_api`'s.
    (folder / "schemathesis.toml").write_text("[phases.coverage]\nunexpected-methods = []\n")
    file = folder / "openapi.json"
    file.write_text(json.dumps(document))
    return file


async def test_no_request_that_fits_the_description_or_nearly_does_finds_a_defect(
    tmp_path: Path,
) -> None:
    folder = state_dir(tmp_path / "state")
    async with served(folder) as address, Client(address, token=TOKEN) as client:
        operation = await client.start("provision", {})
        async for _ in client.follow(operation["id"]):
            pass
        command = [
            str(Path(sys.executable).with_name("schemathesis")), "run",
            str(description(tmp_path)), "--url", address, "-H", f"Authorization: Bearer {TOKEN}",
            "--checks", "not_a_server_error", "--phases", "coverage,fuzzing", "-n", "3",
            "--generation-deterministic", "--no-color", "--warnings", "off",
        ]  # fmt: skip
        ended = await asyncio.to_thread(
            subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert ended.returncode == 0, ended.stdout + ended.stderr


async def test_no_arguments_make_a_planner_fail(empty_platform: Platform) -> None:
    platform, chance = empty_platform, Random(1)
    planned = 0
    for _ in ("before the first map", "provisioned"):
        observed, shard_map = await platform.provider.observe(), await platform.store.shard_map()
        for verb, planner in VERBS.items():
            kinds = signature(planner).parameters.items()
            names = [name for name, each in kinds if each.kind is Parameter.KEYWORD_ONLY]
            for _ in range(60):
                sent = {name: chance.choice(VALUES) for name in names if chance.random() < 0.7}
                try:
                    args = arguments.check(verb, planner, {**sent, "reason": "INC-1"})
                    plan = planner(platform.topology, observed, shard_map, **args)
                except Problem:
                    continue
                json.dumps(plan.to_json(), allow_nan=False, ensure_ascii=False).encode()
                planned += 1
        await platform.run("provision")
    assert planned > 100
