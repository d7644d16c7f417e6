"""Did you mean …?"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from runtime.errors import NotFound


def unknown(what: str, name: str, known: Iterable[str]) -> NotFound:
    """There is no such thing; the nearest names, or all of them."""
    names = sorted(known)
    near = get_close_matches(name, names, n=3, cutoff=0.75)
    hint = f"did you mean {' or '.join(near)}?" if near else f"one of: {', '.join(names)}"
    return NotFound(f"There is no {what} {name!r}.", hint=hint)
