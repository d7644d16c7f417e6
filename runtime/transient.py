"""Failures of a database after which the same work may succeed elsewhere or later."""

from __future__ import annotations

import asyncpg

# The database is no owner of the slot, or under another epoch: a newer map says who is.
STALE = "stale-epoch"
# It cannot be reached, or went away.
LOST_SERVER = "lost"
# SQLSTATEs after which the same work may succeed elsewhere or later: stale epoch, read-only
# transaction, shutdown, crash, starting up, cancelled, serialization, deadlock.
TRANSIENT = frozenset(
    [
        "RG001",
        "25006",
        "57P01",
        "57P02",
        "57P03",
        "57P05",
        "57014",
        "40001",
        "40P01",
    ]
)
# Connections; too few resources (connections, memory, disk); troubles of the machine.
CLASSES = ("08", "53", "58")
# How a connection fails when its server goes away. asyncpg raises InternalClientError when the
# server's last words arrive just as a statement is sent.
LOST = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class NotOwner(Exception):
    """The server's fence has another epoch than the map: it is not the primary of this slot."""


class Unreplicated(Exception):
    """A commit that the standby has not confirmed: not to be acknowledged."""


def transient(error: BaseException) -> str | None:
    """Why the same work may succeed when begun anew; None when it will not."""
    if isinstance(error, Unreplicated):
        return "unreplicated"
    if isinstance(error, NotOwner):
        return STALE
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        if state == "RG001":
            return STALE
        if state in TRANSIENT or state.startswith(CLASSES):
            return LOST_SERVER
        return None
    if isinstance(error, LOST):
        return LOST_SERVER
    return None
