"""docs/aws-emulation.md: what of AWS is emulated, what only stubbed, what neither. From the tests.

    python -m tests.infra.aws.table

Operations come from the code that asks for them, and who answers from the tests that say so
(`pytest.mark.shows`) and fail when they have not asked.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from infra.aws.limits import REASONS
from tests.infra.aws import not_on_aws
from tests.infra.aws.emulators import MINISTACK

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PAGE = ROOT / "docs" / "aws-emulation.md"
STUBS = "test_stubbed.py"
HEAD = """# What of AWS is emulated

Made by `python -m tests.infra.aws.table` from the tests; a test fails when it is not true.

Nothing here was measured on AWS. An emulator keeps what it is told and answers with it: it shows
that a request is right and its answer understood, not how long anything takes or what it loses. A
stub shows that a request is well-formed by AWS' own model. What AWS does is shown by the live
tests only: `pytest -m aws`, with credentials. Not proven yet: by which dimensions CloudWatch has
AuroraGlobalDBReplicationLag (the cluster alone, or with SourceRegion). Both are asked for and the
worse counts; the alarm asks by Metrics Insights, which finds it by either.

| service | operation | asked by | shown on |
|---|---|---|---|
"""


def operations() -> dict[str, set[str]]:
    """ "service.operation" → the modules of `infra/aws` that ask for it."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "infra" / "aws").rglob("*.py")):
        if "program" in path.parts or "policy_pack" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                words = [a.value for a in node.args if isinstance(a, ast.Constant)]
                if node.func.attr in ("call", "pages") and len(words) >= 2:
                    where = str(path.relative_to(ROOT / "infra" / "aws").with_suffix(""))
                    found.setdefault(f"{words[0]}.{words[1]}", set()).add(where)
    return found


def shown() -> dict[str, set[str]]:
    """ "service.operation" → the emulators, or "stub", that a test says it was shown on."""
    found: dict[str, set[str]] = {}
    for path in sorted(HERE.glob("test_*.py")):
        for name, on in _marked(path):
            usual = "ministack" if name.partition(".")[0] in MINISTACK else "moto"
            found.setdefault(name, set()).add("stub" if path.name == STUBS else on or usual)
    return found


def _marked(path: Path) -> Iterator[tuple[str, str | None]]:
    """(operation, the emulator when it is not the usual one) of each mark."""
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    for call in calls:
        if isinstance(call.func, ast.Attribute) and call.func.attr == "shows":
            on = [str(k.value.value) for k in call.keywords if isinstance(k.value, ast.Constant)]
            for each in call.args:
                if isinstance(each, ast.Constant):
                    yield str(each.value), on[0] if on else None


def page() -> str:
    known = shown()
    rows = [
        f"| {name.partition('.')[0]} | {name.partition('.')[2]} | {', '.join(sorted(where))} | "
        f"{_best(known.get(name, set()))} |"
        for name, where in sorted(operations().items())
    ]
    limits = [f"| {what} | {why} |" for what, why in sorted(REASONS.items())]
    skipped = [
        f"| {test.removeprefix('test_').replace('_', ' ')} | {why} |"
        for test, why in sorted(not_on_aws.REASONS.items())
    ]
    return "\n".join(
        [
            HEAD + "\n".join(rows),
            "",
            "## What AWS cannot do, and the provider refuses",
            "",
            "| asked | why not |",
            "|---|---|",
            *limits,
            "",
            "## Promises of the provider contract that AWS cannot keep",
            "",
            "| promise | why not |",
            "|---|---|",
            *skipped,
            "",
        ]
    )


def _best(where: set[str]) -> str:
    emulated = sorted(where - {"stub"})
    return ", ".join(emulated) or ("stub only" if where else "**neither**")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
