"""Lengths of time and moments, as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from runtime.errors import Invalid

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
HINT = "write it as 30d, 12h, 90m or 3600s"


def seconds_of(text: str) -> int:
    """Such as 30d. Raises `Invalid`."""
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if found is None:
        raise Invalid(f"{text!r} is no length of time.", hint=HINT)
    return int(found[1]) * SECONDS[found[2]]


def moment_of(text: str, now: datetime) -> datetime:
    """So long before `now`, or a time as ISO 8601 writes it (UTC). Raises `Invalid`."""
    if text[:4].isdecimal() and "-" in text:
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            raise Invalid(f"{text!r} is no time.", hint="such as 2026-01-31T04:15:00Z") from None
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    try:
        return now - timedelta(seconds=seconds_of(text))
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)
