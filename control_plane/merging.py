"""What becomes of each difference between a restored copy and the live rows. Pure.

A corruption changed or deleted rows at a known moment; services went on writing afterwards. The
copy has every row as it was just before. From it come back
- rows that are gone: no service deletes any of them;
- lasting columns that differ: no service changes them, so only the corruption can have.
All else stays as it is live: rows made since, and what services have changed since.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from infra.repair import TABLES, Change, Difference

JSON = dict[str, Any]
SHOWN = 20


@dataclass(frozen=True)
class Merge:
    """`changes` put the rows right; `kept` counts live changes since that were left as they are."""

    changes: tuple[Change, ...]
    kept: int

    def to_json(self) -> JSON:
        """Counts and keys; no value of any row."""
        returned = Counter(each.table for each in self.changes if not each.columns)
        restored = Counter(each.table for each in self.changes if each.columns)
        return {
            "insertedRows": dict(returned),
            "restoredRows": dict(restored),
            "keptLiveChanges": self.kept,
            "sample": [
                {"table": each.table, "key": key(each), "columns": list(each.columns)}
                for each in self.changes[:SHOWN]
            ],
        }


def key(change: Change) -> list[str]:
    return [str(change.row[name]) for name in TABLES[change.table].key]


def merge(differences: Iterable[Difference]) -> Merge:
    changes: list[Change] = []
    kept = 0
    for difference in differences:
        change = decide(difference)
        if change is not None:
            changes.append(change)
        kept += _lives_on(difference)
    return Merge(tuple(_parents_first(changes)), kept)


def decide(difference: Difference) -> Change | None:
    """What puts one row right; None when nothing is wrong with it."""
    if difference.now is None:
        return Change(difference.table, difference.then)
    then, now = difference.then, difference.now
    wrong = tuple(n for n in TABLES[difference.table].lasting if then[n] != now[n])
    return Change(difference.table, then, wrong) if wrong else None


def merged(difference: Difference) -> JSON:
    """The row as it will be."""
    change = decide(difference)
    if difference.now is None:
        return dict(difference.then)
    columns = change.columns if change else ()
    return difference.now | {name: difference.then[name] for name in columns}


def _lives_on(difference: Difference) -> bool:
    """Whether services have changed the row since, in columns that stay as they are."""
    if difference.now is None:
        return False
    table = TABLES[difference.table]
    fixed = {*table.key, *table.lasting}
    return any(
        difference.now.get(name) != value
        for name, value in difference.then.items()
        if name not in fixed
    )


def _parents_first(changes: Sequence[Change]) -> list[Change]:
    """In the order of `TABLES`: users before orders, orders before their lines."""
    order = {name: place for place, name in enumerate(TABLES)}
    return sorted(changes, key=lambda each: (order[each.table], key(each)))
