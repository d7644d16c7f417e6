"""RESULTS.md: one section for each benchmark, each replaced as a whole by the run that made it."""

from __future__ import annotations

import re
from pathlib import Path

FILE = Path(__file__).parent / "RESULTS.md"


def replace(title: str, text: str) -> None:
    """The section `# title` says `text`; the others stay as they are."""
    known = sections(FILE.read_text() if FILE.exists() else "")
    known[title] = text.strip()
    FILE.write_text("\n\n".join(f"# {name}\n\n{body}" for name, body in known.items()) + "\n")


def sections(document: str) -> dict[str, str]:
    """Title → text of each top-level section, in order."""
    parts = re.split(r"^# (.+)$", document, flags=re.MULTILINE)
    return {title: body.strip() for title, body in zip(parts[1::2], parts[2::2], strict=True)}
