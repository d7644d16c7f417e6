"""A plan with all that is needed to judge it: `python -m infra.aws.survey --topology NAME|FILE`.

stdout is one line of JSON: `{"plan": …, "schema": …}`, the schema of the types in the plan
(`infra.aws.hints`). One process does both, because the types are loaded only once that way. On an
error it is a problem document (RFC 9457), and the exit code is that of the problem.
"""

from __future__ import annotations

import argparse
import json
import sys

from infra.aws.record import record
from runtime.errors import Problem


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.aws.survey")
    parser.add_argument("--topology", required=True, help="a built-in name, or a file")
    arguments = parser.parse_args()
    try:
        plan = record(arguments.topology)
        from infra.aws import hints

        answer = {"plan": plan, "schema": hints.schema(plan["resources"])}
    except Problem as problem:
        sys.stdout.write(json.dumps(problem.document()) + "\n")
        return int(problem.exit)
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
