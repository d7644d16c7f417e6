"""Positions in the WAL: bytes since its start; PostgreSQL writes "16/B374D848" (pg_lsn)."""

from __future__ import annotations


def parse_lsn(text: str) -> int:
    """Raises `ValueError` when it is none."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def format_lsn(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def parse_history(text: str) -> tuple[tuple[int, int], ...]:
    """(timeline, LSN at which it was left) for each line of a timeline's history file."""
    rows = [line.split() for line in text.splitlines() if line.strip()[:1].isdigit()]
    return tuple((int(row[0]), parse_lsn(row[1])) for row in rows)
