"""Which rows of a shard are to be seen there: those of slots that it owns.

While slots move, both sides have their rows: on the target they are not its own yet, on the source
no longer. Whatever looks through a whole shard says so with these conditions. Who asks for one
user needs none of it: the map leads to the owner.
"""

from __future__ import annotations

_IN = "(crc32(int8send({user})) % 1024 IN (SELECT slot FROM {slots})) IS TRUE"


def served(user: str = "user_id") -> str:
    """SQL: reads of this row go here; also while its slot is fenced, to be handed over.

    The slots are looked up once a statement. `IS TRUE` keeps the planner from making a join of it,
    which would read the whole table where an index and a limit were enough.
    """
    return _IN.format(user=user, slots="regionctl.served")


def owned(user: str = "user_id") -> str:
    """SQL: writes of this row go here."""
    return _IN.format(user=user, slots="regionctl.owned")
