"""Runbooks say what the planners do, under the names that the planners use."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from control_plane import drills
from control_plane.steps import HANDLERS
from infra.provider import Fault
from infra.topology import load
from tests.control_plane.platform import Platform
from tests.control_plane.scenarios import backed_up
from tests.control_plane.test_drills import whole

FOLDER = Path(__file__).resolve().parents[2] / "runbooks"
STEP = re.compile(r"`([a-z]+(?:-[a-z]+)+)`")


def text(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def front(name: str) -> Any:
    return yaml.safe_load(text(name).split("---")[1])


def steps_named(name: str) -> set[str]:
    return {
        word
        for word in STEP.findall(text(name))
        if word not in drills.DRILLS and not word.startswith("queue-failover")
    }


@pytest.mark.parametrize("name", sorted(drills.DRILLS))
def test_every_step_that_a_runbook_names_exists(name: str) -> None:
    assert steps_named(name) <= set(HANDLERS)


@pytest.mark.parametrize("name", sorted(drills.DRILLS))
def test_a_runbook_names_its_drill_and_its_row_of_the_table(name: str) -> None:
    head = front(name)
    assert head["drill"] == f"regionctl drill run {name}"
    assert head["scenario"] == drills.DRILLS[name].scenario
    assert head["symptom"]
    rows = {row.scenario for row in load("two-regions").objectives}
    assert head["scenario"] in rows or drills.DRILLS[name].limits


async def test_the_runbook_of_a_restore_names_every_step_of_one_in_place() -> None:
    async with Platform.open() as platform:
        await backed_up(platform)
        await platform.provider.inject(Fault("freeze", "s1.us-west-2a"))
        plan = await platform.plan("restore", database="s1", to="in-place")
        told = set(re.findall(r"`([a-z-]+)`", text("restore")))
        assert {step.name for step in plan.steps} <= told
        assert steps_named("restore") <= set(HANDLERS)


async def test_the_runbook_of_a_region_names_every_step_of_its_failover() -> None:
    provider, shard_map = await whole(load("two-regions"))
    plan = drills.plan(
        provider.topology, await provider.observe(), shard_map, drill="region-failure"
    )
    told = set(re.findall(r"`([a-z-]+)`", text("region-failure")))
    assert {step["name"] for step in plan.expected["recovery"]} <= told
