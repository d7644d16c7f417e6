"""What a PromQL expression looks at."""

from __future__ import annotations

import re
from collections.abc import Iterator

TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)")
SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*(\{[^{}]*\})?(?!\s*\()(?![\w:])")
LABEL = re.compile(r"([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)")
WINDOW = re.compile(r"\[[^\]]*\]")
WORDS = frozenset(["and", "or", "unless", "bool", "offset"])


def looked_at(expression: str) -> Iterator[tuple[str, frozenset[str]]]:
    """(metric, names of the labels that it is chosen by) of each selector."""
    bare = GROUPING.sub(" ", WINDOW.sub(" ", TEXT.sub('""', expression)))
    for name, chosen in SELECTOR.findall(bare):
        if name not in WORDS:
            yield name, frozenset(LABEL.findall(chosen))
