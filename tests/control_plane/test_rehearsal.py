"""A runbook taken while its drill runs, with a real probe against a small shop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli import rehearsal
from cli.guide import Guide
from cli.leaf import Run
from cli.render import Output
from runbooks import book as books
from runtime.errors import Exit
from tests.control_plane import scenarios
from tests.control_plane.platform import Platform
from tests.control_plane.test_runbooks import opened
from tests.loadtests.shop import open_shop

pytestmark = pytest.mark.process


async def test_a_runbook_looks_while_its_drill_runs_and_ends_with_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with opened(tmp_path) as served:
        plane: Any = served.plane
        await scenarios.provisioned(Platform(plane.provider, plane.store, plane.clock))
        with open_shop() as shop:
            plane.provider.entry_url = lambda: shop.url
            shop.client_file(served.state / "control" / "clients")
            run = Run(Output.json, state_dir=served.state, no_input=True)
            drill = await rehearsal.begin(run, "service-outage", "a rehearsal")
            book = books.read("service-outage")
            guide = Guide(run, book, {}, True, execute=served.execute, rehearsed=drill)
            await guide.through()
        document = json.loads(capsys.readouterr().out)
        assert [step["state"] for step in document["steps"]] == ["done", "nothing-to-do", "done"]
        assert document["drill"] == {
            "operation": "op-1",
            "name": "service-outage",
            "verdict": "passed",
        }
        assert drill.exit == Exit.OK
        (operation,) = await plane.store.operations()
        assert operation.state == "succeeded"
