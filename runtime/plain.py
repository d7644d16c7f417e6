"""Text from elsewhere, made safe to show: it must not move the cursor nor turn a line around.

What people, their tokens' names and servers' logs say ends on somebody's terminal. Control
characters of ECMA-48 (C0, DEL, C1), Unicode's line and paragraph separators, and its embeddings,
overrides and isolates of direction (UAX #9, section 2) become U+FFFD.
"""

from __future__ import annotations

import re

UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def plain(text: str, *, keep: str = "") -> str:
    """`text` as one that can do nothing but be read; the characters in `keep` stay."""
    return UNSAFE.sub(
        lambda found: found[0] if found[0] in keep else "\N{REPLACEMENT CHARACTER}", text
    )
