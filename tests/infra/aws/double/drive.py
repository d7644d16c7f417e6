"""Drives the real engine module through many actions in one process: `python -m … DIR`.

DIR has a backend for the double. After each action a line `{"case": NAME, "code": EXIT}` follows
what the action said. One process, because Pulumi and its AWS package take seconds to load.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.aws import engine
from infra.aws.engine_request import MAKING, Request
from infra.aws.policy_pack.durability import TAGS

PROJECT, STACK = "regionctl", "small.test"


def program(*, days: int = 7, rotation: bool = True, fails: bool = False) -> Callable[[], None]:
    """A provider, a key and a log group that is encrypted with it."""

    def declare() -> None:
        provider = aws.Provider(
            "here",
            region="us-east-1",
            default_tags=aws.ProviderDefaultTagsArgs(tags=dict.fromkeys(TAGS, "test")),
        )
        options = pulumi.ResourceOptions(provider=provider, protect=True)
        key = aws.kms.Key("key", enable_key_rotation=rotation, opts=options)
        group = aws.cloudwatch.LogGroup(
            "logs",
            name="/test",
            retention_in_days=days,
            kms_key_id=key.arn,
            opts=pulumi.ResourceOptions(provider=provider),
        )
        pulumi.export("group", group.name)
        if fails:
            raise LookupError("a planted mistake")

    return declare


def act(case: str, action: str, folder: Path, what: Callable[[], None], **given: Any) -> None:
    request = Request(
        topology="small",
        work_dir=folder / "work",
        backend=f"file://{folder}",
        may_create=action in MAKING,
        **given,
    )
    code = engine.run(action, request, PROJECT, STACK, what)
    engine.emit({"case": case, "code": code})


def main(folder: Path) -> None:
    usual = program()
    act("nothing there", "outputs", folder, usual)
    act("first up", "up", folder, usual)
    act("second up", "up", folder, usual)
    act("changed preview", "preview", folder, program(days=30))
    act("export", "export", folder, usual)
    act("forbidden", "up", folder, program(rotation=False))
    act("program fails", "preview", folder, program(fails=True))
    (folder / f"{STACK}.lock").touch()
    act("locked", "up", folder, usual)
    (folder / f"{STACK}.lock").unlink()
    (folder / "no-plugin").touch()
    act("no plugin", "preview", folder, usual)
    (folder / "no-plugin").unlink()
    passphrase = os.environ.pop("PULUMI_CONFIG_PASSPHRASE")
    act("no passphrase", "preview", folder, usual)
    os.environ["PULUMI_CONFIG_PASSPHRASE"] = passphrase
    act("protected", "destroy", folder, usual)
    os.environ["PATH"] = str(folder)
    act("no cli", "preview", folder, usual)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
