"""Checks a drill report against its raw files, without a platform.

    python -m control_plane.verify drills/op-12/report.json

Prints one JSON document: the verdict that the raw files lead to ("void" when anything does not
fit), and what was found wrong. Exit code 0 whenever there is an answer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from control_plane import report
from runtime.errors import Invalid, Problem

JSON = dict[str, Any]


def verify(file: Path) -> JSON:
    """Raises `Invalid` when the file is not a drill report."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Invalid(f"{file} cannot be read as a report: {error}.") from error
    if not isinstance(document, dict) or document.get("kind") != "DrillReport":
        raise Invalid(f"{file} is not a drill report.", hint="regionctl drill history")
    if document.get("schemaVersion") != report.SCHEMA_VERSION:
        raise Invalid(
            f"{file} has schema version {document.get('schemaVersion')}; this version of regionctl "
            f"reads {report.SCHEMA_VERSION}.",
            hint="Use the regionctl version that the report names.",
        )
    files = _files(file.parent, document.get("files", {}))
    findings = report.check(document, files)
    return {
        "apiVersion": "regionctl/v1",
        "kind": "ReportVerification",
        "operation": document.get("operation"),
        "drill": document.get("drill"),
        "verdict": "void" if findings else document.get("verdict"),
        "reported": document.get("verdict"),
        "genuine": not findings,
        "findings": findings,
        "files": len(files),
    }


def _files(folder: Path, named: JSON) -> dict[str, bytes]:
    """The raw files that a report names; one outside its folder is not read."""
    inside = folder.resolve()
    paths = {name: (folder / name).resolve() for name in named}
    return {
        name: path.read_bytes()
        for name, path in paths.items()
        if path.is_relative_to(inside) and path.is_file()
    }


def main(arguments: Sequence[str]) -> int:
    try:
        document = verify(Path(arguments[0]))
    except Problem as problem:
        sys.stdout.write(json.dumps(problem.document()) + "\n")
        return int(problem.exit)
    sys.stdout.write(json.dumps(document) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
