"""A stack that the double keeps, and `regionctl infra` typed against it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cli.console import Ended, regionctl
from tests.infra.aws.test_engine import with_double

STACK = "aws-two-regions.prod"


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """A backend of the double in which there is a stack with outputs and no resources."""
    state = {"version": 1, "resources": [], "outputs": {"entryUrl": "https://it"}}
    (tmp_path / f"{STACK}.json").write_text(json.dumps(state))
    return tmp_path


def infra(stack: Path, *words: str) -> Ended:
    if not (stack / "bin").exists():
        with_double(stack)
    path = f"{stack / 'bin'}{os.pathsep}{os.environ['PATH']}"
    env = {"PATH": path, "PULUMI_CONFIG_PASSPHRASE": "test", "PYTHONPATH": str(Path.cwd())}
    return regionctl("infra", *words, "--backend", f"file://{stack}", home=stack, env=env)
