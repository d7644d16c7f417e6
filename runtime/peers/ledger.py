"""What the payment gateway's stand-in knows, in one SQLite file.

Everything that one tick of the loop asks for is one transaction, and no answer is given before
its commit is on the disk: a kill -9 loses nothing that was answered.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Document = dict[str, Any]

TABLES = """
CREATE TABLE IF NOT EXISTS charges (
    id TEXT PRIMARY KEY, created INTEGER NOT NULL UNIQUE, reference TEXT NOT NULL,
    amount_cents INTEGER NOT NULL, currency TEXT NOT NULL, method TEXT NOT NULL,
    status TEXT NOT NULL, reason TEXT, refund_id TEXT, changed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS charges_reference ON charges (reference);
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, digest TEXT NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS met (key TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hooks (
    id TEXT PRIMARY KEY, body TEXT NOT NULL, attempts INTEGER NOT NULL, due REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS hooks_due ON hooks (due);
CREATE TABLE IF NOT EXISTS fault (one INTEGER PRIMARY KEY, mode TEXT NOT NULL, until REAL NOT NULL);
"""
CHARGE = (
    "id, created, reference, amount_cents, currency, method, status, reason, refund_id, changed"
)


class Ledger:
    """Charges, the answer of each idempotency key, and the webhooks that are to be delivered."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA cache_size = -2000")
        self._db.executescript(TABLES)
        # A file that a stand-in without this column made.
        if not self._db.execute(
            "SELECT count(*) FROM pragma_table_info('charges') WHERE name = 'changed'"
        ).fetchone()[0]:
            self._db.execute("ALTER TABLE charges ADD COLUMN changed INTEGER NOT NULL DEFAULT 0")
            self._db.execute("UPDATE charges SET changed = created")
        self._db.execute("CREATE UNIQUE INDEX IF NOT EXISTS charges_changed ON charges (changed)")
        self._wishes: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []
        newest = self._db.execute("SELECT max(changed) FROM charges").fetchone()[0]
        self._moment = int(newest or 0)
        self.hooked = asyncio.Event()

    def close(self) -> None:
        self._db.close()

    async def write(self, work: Callable[[], T]) -> T:
        """What `work` returns, once it is on the disk. What it raises must come before it writes.

        Raises `sqlite3.Error` when the file cannot be written.
        """
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._wishes.append((work, outcome))
        if len(self._wishes) == 1:
            asyncio.get_running_loop().call_soon(self._commit)
        return await outcome

    def _commit(self) -> None:
        wishes, self._wishes = self._wishes, []
        settled: list[tuple[asyncio.Future[Any], Any, Exception | None]] = []
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for work, outcome in wishes:
                try:
                    settled.append((outcome, work(), None))
                except ValueError as refusal:
                    settled.append((outcome, None, refusal))
            self._db.execute("COMMIT")
        except sqlite3.Error as trouble:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            settled = [(outcome, None, trouble) for _, outcome in wishes]
        for outcome, value, error in settled:
            if outcome.done():
                continue
            if error is None:
                outcome.set_result(value)
            else:
                outcome.set_exception(error)

    def replay(self, key: str, digest: str) -> tuple[int, str] | None:
        """What `key` was answered. 409 when it came with another request."""
        row = self._db.execute(
            "SELECT digest, status, body FROM answers WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            return None
        if row[0] != digest:
            return 409, json.dumps({"error": "This Idempotency-Key was used for another request."})
        return row[1], row[2]

    def first_meeting(self, key: str) -> bool:
        """Whether `key` was never seen before; it is from now on."""
        return self._db.execute("INSERT OR IGNORE INTO met VALUES (?)", (key,)).rowcount == 1

    def charge(self, key: str, digest: str, wish: Document) -> tuple[int, str]:
        known = self.replay(key, digest)
        if known:
            return known
        now = self._now()
        declined = wish["method"] == "card-declined"
        charge = {
            "id": _name("ch", key),
            "created": now,
            **{name: wish[name] for name in ("reference", "amount_cents", "currency", "method")},
            "status": "declined" if declined else "captured",
            "reason": "card-declined" if declined else None,
            "refund_id": None,
            "changed": now,
        }
        self._db.execute(
            f"INSERT INTO charges ({CHARGE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            tuple(charge.values()),
        )
        return self._answer(key, digest, charge)

    def refund(self, key: str, digest: str, id: str) -> tuple[int, str]:
        """A charge is refunded once: another key finds the refund that there is."""
        known = self.replay(key, digest)
        if known:
            return known
        charge = self.find(id)
        if charge is None:
            return 404, json.dumps({"error": f"There is no charge {id}."})
        if charge["status"] == "declined":
            return 422, json.dumps({"error": "A declined charge cannot be refunded."})
        if charge["status"] == "captured":
            charge |= {
                "status": "refunded", "refund_id": _name("re", key), "changed": self._now()
            }  # fmt: skip
            self._db.execute(
                "UPDATE charges SET status = 'refunded', refund_id = ?, changed = ? WHERE id = ?",
                (charge["refund_id"], charge["changed"], id),
            )
        return self._answer(key, digest, charge)

    def find(self, id: str) -> Document | None:
        rows = self._charges("WHERE id = ?", id)
        return rows[0] if rows else None

    def charges(self, reference: str | None, after: int, limit: int) -> list[Document]:
        """Charges made after the time `after` (µs since 1970), oldest first."""
        if reference is None:
            return self._charges("WHERE created > ? ORDER BY created LIMIT ?", after, limit)
        return self._charges(
            "WHERE reference = ? AND created > ? ORDER BY created LIMIT ?", reference, after, limit
        )

    def changed(self, after: int, limit: int) -> list[Document]:
        """Charges last changed after the time `after` (µs since 1970), in the order of that."""
        return self._charges("WHERE changed > ? ORDER BY changed LIMIT ?", after, limit)

    def hooks_due(self, now: float, limit: int) -> list[tuple[str, str, int]]:
        """(id, body, attempts so far), the longest due first."""
        return self._db.execute(
            "SELECT id, body, attempts FROM hooks WHERE due <= ? ORDER BY due LIMIT ?",
            (now, limit),
        ).fetchall()

    def next_due(self) -> float | None:
        due: float | None = self._db.execute("SELECT min(due) FROM hooks").fetchone()[0]
        return due

    def delivered(self, id: str) -> None:
        self._db.execute("DELETE FROM hooks WHERE id = ?", (id,))

    def postpone(self, id: str, due: float) -> None:
        self._db.execute(
            "UPDATE hooks SET attempts = attempts + 1, due = ? WHERE id = ?", (due, id)
        )

    def fault(self) -> tuple[str, float]:
        """(mode, until when in Unix seconds)."""
        row = self._db.execute("SELECT mode, until FROM fault").fetchone()
        return (row[0], row[1]) if row else ("up", 0.0)

    def set_fault(self, mode: str, until: float) -> None:
        self._db.execute("INSERT OR REPLACE INTO fault VALUES (1, ?, ?)", (mode, until))

    def _now(self) -> int:
        """µs since 1970; strictly growing, so that it is a cursor too."""
        self._moment = max(self._moment + 1, time.time_ns() // 1000)
        return self._moment

    def _answer(self, key: str, digest: str, charge: Document) -> tuple[int, str]:
        body = json.dumps(charge)
        self._db.execute("INSERT INTO answers VALUES (?, ?, 201, ?)", (key, digest, body))
        kind = f"charge.{charge['status']}"
        hook = json.dumps({"type": kind, "data": charge})
        name = _name("msg", f"{charge['id']}:{kind}")
        made = self._db.execute(
            "INSERT OR IGNORE INTO hooks VALUES (?, ?, 0, ?)", (name, hook, time.time())
        )
        if made.rowcount:
            self.hooked.set()
        return 201, body

    def _charges(self, where: str, *values: object) -> list[Document]:
        rows = self._db.execute(f"SELECT {CHARGE} FROM charges {where}", values)  # noqa: S608
        return [dict(zip(CHARGE.split(", "), row, strict=True)) for row in rows]


def _name(kind: str, of: str) -> str:
    return f"{kind}_{hashlib.sha256(of.encode()).hexdigest()[:24]}"


def digest(path: str, wish: Document) -> str:
    """What makes two requests the same request."""
    return hashlib.sha256(json.dumps([path, wish], sort_keys=True).encode()).hexdigest()
