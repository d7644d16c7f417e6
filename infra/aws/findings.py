"""What is wrong with a plan: findings as data. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any, Literal

Level = Literal["error", "warning"]


@dataclass(frozen=True, order=True)
class Finding:
    """One mistake in a declaration.

    `urn` is the resource, or empty for the plan as a whole; `path` leads into its inputs
    ("networkConfiguration.subnets[0]"); `rule` names the check. A warning rests on documentation
    that may lag behind AWS; an error does not.
    """

    urn: str
    path: str
    rule: str
    message: str
    hint: str = ""
    level: Level = "error"

    def document(self) -> dict[str, Any]:
        return asdict(self)


def did_you_mean(word: str, known: Iterable[str], *, most: int = 8) -> str:
    """A hint: the nearest known word, else a few of them; empty when nothing is known."""
    words = sorted(known)
    near = get_close_matches(word, words, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    if not words:
        return ""
    more = f", … ({len(words)} in all)" if len(words) > most else ""
    return f"known: {', '.join(words[:most])}{more}"
