"""The plan of the default topology, recorded once for all workers of a test run."""

from __future__ import annotations

import copy
import fcntl
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

JSON = dict[str, Any]
TOPOLOGY = "aws-two-regions"


def survey(factory: pytest.TempPathFactory) -> JSON:
    """What `python -m infra.aws.survey` says, with the plan and its schema; not to be changed."""
    base = factory.getbasetemp()
    return _read(base if base.name.startswith("pytest-") else base.parent)


@cache
def _read(folder: Path) -> JSON:
    file = folder / "survey.json"
    with (folder / "survey.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            command = [sys.executable, "-m", "infra.aws.survey", "--topology", TOPOLOGY]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            file.write_text(done.stdout)
    return dict(json.loads(file.read_text()))


def of(plan: JSON, type: str) -> Iterator[JSON]:
    """The resources whose type ends so: ":Bucket"."""
    return (one for one in plan["resources"] if one["type"].endswith(type))


def with_mistake(plan: JSON, plant: Callable[[JSON], None]) -> JSON:
    """A copy of the plan in which `plant` has changed something."""
    changed = copy.deepcopy(plan)
    plant(changed)
    assert changed != plan, "nothing was planted"
    return changed
