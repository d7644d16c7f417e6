"""What `/` understands: a regular expression, `!` for its inverse, `-f` for fuzzy. Pure.

Fuzzy: the letters in this order, others between them, within one word.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Filter:
    """`text` as it was typed; case does not matter. A broken expression is looked for as it is."""

    text: str = ""
    _test: Callable[[str], bool] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_test", _compile(self.text.strip()))

    def __bool__(self) -> bool:
        return bool(self.text.strip())

    def keeps(self, line: str) -> bool:
        return self._test(line)


def _compile(text: str) -> Callable[[str], bool]:
    if text.startswith("!"):
        inner = _compile(text[1:].strip())
        return lambda line: len(text) == 1 or not inner(line)
    if text.startswith("-f "):
        letters = r"\S*?".join(re.escape(c) for c in text[3:].replace(" ", ""))
        return _search(letters)
    return _search(text)


def _search(text: str) -> Callable[[str], bool]:
    try:
        expression = re.compile(text, re.IGNORECASE)
    except re.error:
        expression = re.compile(re.escape(text), re.IGNORECASE)
    return lambda line: expression.search(line) is not None
