"""The chain of an audit log: each entry has the hash of the one before it. Pure.

So nothing can be taken out, put in or changed without breaking every hash after it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

JSON = dict[str, Any]
Kind = Literal["asked", "refused", "ended"]

FIRST = "0" * 64


@dataclass(frozen=True)
class Entry:
    """`plan` is the digest of the plan and `steps` its steps' names, when there was a plan."""

    sequence: int
    at: str
    kind: str
    actor: str
    role: str
    action: str
    target: str
    reason: str
    operation: str | None
    plan: str | None
    steps: tuple[str, ...] | None
    outcome: str | None
    previous: str
    hash: str

    def to_json(self) -> JSON:
        return asdict(self)


@dataclass(frozen=True)
class Broken:
    """The first entry that does not fit: everything from it on cannot be believed."""

    sequence: int
    why: str


@dataclass(frozen=True)
class Verdict:
    """`entries` is how many were read; `head` the hash of the last one that fits."""

    entries: int
    head: str
    broken: Broken | None


def seal(values: JSON) -> str:
    """The hash of an entry, over everything in it but itself."""
    covered = {key: value for key, value in values.items() if key != "hash"}
    text = json.dumps(covered, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def first_broken(entries: Iterable[Entry], after: int = 0, head: str = FIRST) -> Broken | None:
    """Where the chain breaks that follows entry number `after` with the hash `head`."""
    for entry in entries:
        if entry.sequence != after + 1:
            return Broken(after + 1, f"entry {after + 1} is missing")
        if entry.previous != head:
            return Broken(entry.sequence, "it does not follow the entry before it")
        if seal(entry.to_json()) != entry.hash:
            return Broken(entry.sequence, "it is not what was written")
        after, head = entry.sequence, entry.hash
    return None
