"""Writes the plan of a topology: `python -m infra.aws.record --topology NAME|FILE [--out FILE]`.

A process of its own, because the Pulumi SDK is large and keeps state for as long as its process
lives: nobody else imports it. stdout is the plan (`infra/aws/plan.py`); an error is a problem
document (RFC 9457) on stderr, and the exit code is that of the problem.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

from infra.aws import plan as plans
from infra.aws.spec import platform
from infra.topology import parse, read
from runtime.errors import Problem, Refused

# With it the SDK raises where text is made of a value that is not known yet.
os.environ["PULUMI_ERROR_OUTPUT_STRING"] = "1"


def record(name_or_path: str) -> plans.JSON:
    """The plan of that topology. Raises `Refused` without the extra `aws`, and what the topology
    or the program raises."""
    text, source = read(name_or_path)
    wanted = platform(parse(text, source), text)
    try:
        from infra.aws import monitor
        from infra.aws.program import main
    except ImportError as error:
        raise Refused(
            f"This installation cannot plan for AWS: {error}.",
            hint="pip install 'regionctl[aws]'",
        ) from error
    seen = monitor.run(wanted.project, wanted.stack, lambda: main.declare(wanted))
    tools = {"pulumi": version("pulumi"), "pulumiAws": version("pulumi-aws")}
    return plans.document(wanted.topology.name, tools, seen.registered, seen.outputs)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.aws.record")
    parser.add_argument("--topology", required=True, help="a built-in name, or a file")
    parser.add_argument("--out", type=Path, help="a file instead of stdout")
    arguments = parser.parse_args()
    # The process ends when the plan is written: looking for garbage is a quarter of its work.
    gc.disable()
    try:
        text = plans.text(record(arguments.topology))
    except Problem as problem:
        sys.stderr.write(json.dumps(problem.document()) + "\n")
        return int(problem.exit)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
