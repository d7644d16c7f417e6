"""What the probe's journal proves: recovery time, loss, errors, two writers.

Pure: lines in, figures out, so that anyone can recompute a report from its raw journal. All times
are seconds of CLOCK_MONOTONIC, which the probe and the fault's injector share.

Rules, fixed before any run:
- Recovery is proven only by a request that was sent after the fault had taken effect and was
  acknowledged; it is timed from the moment the fault began to the moment the answer arrived.
- It counts from the first such acknowledgement after which, for the hold period, at least 99 % of
  all attempts sent or answered in that period succeeded. Attempts without an answer are failures.
- A lost write is one that was acknowledged and cannot be read back. An unknown one is never lost.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Literal

from runtime.errors import MeasurementVoid
from runtime.shardmap import CATALOG

JSON = dict[str, Any]
Outcome = Literal["ok", "failed", "unknown"]

CREATE_USER, CREATE_ORDER, READ_ORDER = "create-user", "create-order", "read-order"
WRITES = (CREATE_ORDER, CREATE_USER)
HOLD_SECONDS = 3.0
SUCCESS = 0.99
ON_TIME_SECONDS = 0.5


@dataclass(frozen=True)
class Attempt:
    """One request, sent once. `done` is None when no answer came before the journal ended."""

    n: int
    kind: str
    key: str | None
    user: str | None
    intended: float
    sent: float
    outcome: Outcome = "unknown"
    done: float | None = None
    status: int | None = None
    shard: str | None = None
    epoch: int | None = None
    region: str | None = None
    record: str | None = None
    amount_cents: int | None = None

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"


@dataclass(frozen=True)
class Ledger:
    """A parsed journal. `ready` is when the open-loop arrivals began, `end` the last line's time.

    `planned` is None when the probe died: it could not say how many arrivals were due.
    """

    attempts: tuple[Attempt, ...]
    monotonic: float
    wall: float
    ready: float | None
    end: float
    planned: int | None
    rate: float

    @property
    def arrivals(self) -> tuple[Attempt, ...]:
        """The attempts of the open loop, without those that prepared it."""
        ready = self.ready
        return tuple(a for a in self.attempts if ready is not None and a.intended >= ready)

    def offered(self) -> float:
        """The share (0..1) of the planned arrivals that left within half a second of their time."""
        on_time = sum(a.sent - a.intended <= ON_TIME_SECONDS for a in self.arrivals)
        return on_time / self.planned if self.planned else 0.0


@dataclass(frozen=True)
class Tally:
    """Attempts by outcome: `attempted` is always the sum of the other three."""

    attempted: int
    acknowledged: int
    failed: int
    unknown: int


@dataclass(frozen=True)
class Counts:
    """Writes and reads apart: only a write can be lost, a read acknowledges nothing."""

    writes: Tally
    reads: Tally


@dataclass(frozen=True)
class Loss:
    """Acknowledged writes that cannot be read back. `seconds` is None when nothing was lost.

    `seconds` runs from the oldest lost acknowledgement to the fault; it is negative when every
    lost write was acknowledged after the fault.
    """

    count: int
    value_cents: int
    seconds: float | None
    records: tuple[str, ...]
    wrong: int
    duplicated: int


def parse(lines: Iterable[str]) -> Ledger:
    """The ledger of a journal's lines.

    A torn last line is ignored (the probe was killed). Raises `MeasurementVoid` for any other
    damage: evidence that cannot be read proves nothing.
    """
    documents = _documents([line for line in lines if line.strip()])
    if not documents or documents[0].get("line") != "start":
        raise MeasurementVoid("The probe's journal has no first line.", hint="Run the drill again.")
    start = documents[0]
    intents: dict[int, JSON] = {}
    ready: float | None = None
    planned: int | None = None
    end = float(start["monotonic"])
    try:
        for document in documents[1:]:
            kind = document["line"]
            if kind == "intent":
                intents[document["n"]] = document
            elif kind == "outcome":
                intents[document["n"]].update(document)
            elif kind == "ready":
                ready = document["monotonic"]
            elif kind == "end":
                planned = document["planned"]
            end = max(end, document.get("monotonic") or document.get("done") or document["sent"])
        attempts = tuple(_attempt(intent) for intent in intents.values())
    except (KeyError, TypeError) as error:
        raise MeasurementVoid(f"The probe's journal is damaged: {error!r}.") from error
    return Ledger(
        attempts, start["monotonic"], start["wall"], ready, end, planned, float(start["rate"])
    )


def _documents(lines: Sequence[str]) -> list[JSON]:
    documents: list[JSON] = []
    for number, line in enumerate(lines):
        try:
            documents.append(json.loads(line))
        except ValueError as error:
            if number != len(lines) - 1:
                raise MeasurementVoid(f"Line {number + 1} of the journal is damaged.") from error
    return documents


def _attempt(document: Mapping[str, Any]) -> Attempt:
    return Attempt(
        n=document["n"],
        kind=document["kind"],
        key=document["key"],
        user=document["user"],
        intended=document["intended"],
        sent=document["sent"],
        outcome=document.get("outcome", "unknown"),
        done=document.get("done"),
        status=document.get("status"),
        shard=document.get("shard"),
        epoch=document.get("epoch"),
        region=document.get("region"),
        record=document.get("order_id") or document.get("user_id"),
        amount_cents=document.get("amount_cents"),
    )


def counts(ledger: Ledger) -> Counts:
    """Every attempt by outcome, those that prepared the open loop included."""
    return Counts(
        tally([a for a in ledger.attempts if a.kind in WRITES]),
        tally([a for a in ledger.attempts if a.kind not in WRITES]),
    )


def tally(attempts: Collection[Attempt]) -> Tally:
    found = Counter(attempt.outcome for attempt in attempts)
    return Tally(len(attempts), found["ok"], found["failed"], found["unknown"])


def shards_of_users(ledger: Ledger) -> dict[str, str]:
    """Each user's shard, as any answer about the user said."""
    shards: dict[str, str] = {}
    for attempt in ledger.attempts:
        user = attempt.record if attempt.kind == CREATE_USER else attempt.user
        if user and attempt.shard and attempt.shard != CATALOG:
            shards.setdefault(user, attempt.shard)
    return shards


def affected(ledger: Ledger, databases: Collection[str]) -> tuple[Attempt, ...]:
    """The arrivals that need one of `databases`; all of them when `databases` is empty.

    A new user needs the catalog and the user's shard; a new user that got no answer has no known
    shard and is taken as affected.
    """
    if not databases:
        return ledger.arrivals
    shards = shards_of_users(ledger)

    def needs(attempt: Attempt) -> bool:
        if attempt.kind == CREATE_USER:
            shard = shards.get(attempt.record or "")
            return CATALOG in databases or shard is None or shard in databases
        return shards.get(attempt.user or "") in databases

    return tuple(attempt for attempt in ledger.arrivals if needs(attempt))


def recovery_seconds(
    attempts: Sequence[Attempt],
    end: float,
    *,
    began: float,
    effective: float,
    hold_seconds: float = HOLD_SECONDS,
    success: float = SUCCESS,
) -> float | None:
    """Seconds from `began` until recovery by the rules above; None when it is not proven.

    A hold period that reaches past `end`, the last thing that the ledger saw, proves nothing.
    """
    after = [attempt for attempt in attempts if attempt.sent >= effective]
    good, bad = _Spans([a for a in after if a.ok]), _Spans([a for a in after if not a.ok])
    for arrived in sorted(a.done for a in after if a.ok and a.done is not None):
        until = arrived + hold_seconds
        if until > end:
            return None
        succeeded, missed = good.within(arrived, until), bad.within(arrived, until)
        if succeeded >= success * (succeeded + missed):
            return arrived - began
    return None


class _Spans:
    """How many attempts were sent or answered within a period."""

    def __init__(self, attempts: Sequence[Attempt]) -> None:
        pairs = sorted((a.sent, a.done) for a in attempts if a.done is not None)
        self._sent = sorted(a.sent for a in attempts)
        self._pairs_sent = [sent for sent, _ in pairs]
        self._done = sorted(done for _, done in pairs)
        self._pairs = pairs

    def within(self, first: float, last: float) -> int:
        sent = bisect_right(self._sent, last) - bisect_left(self._sent, first)
        done = bisect_right(self._done, last) - bisect_left(self._done, first)
        start, stop = bisect_left(self._pairs_sent, first), bisect_right(self._pairs_sent, last)
        both = sum(answered <= last for _, answered in self._pairs[start:stop])
        return sent + done - both


def rto(
    ledger: Ledger,
    databases: Collection[str],
    *,
    began: float,
    effective: float,
    hold_seconds: float = HOLD_SECONDS,
    success: float = SUCCESS,
) -> dict[str, float | None]:
    """Recovery time of each kind of operation that needs `databases`, in seconds.

    A read that was answered with 404 is left out: it tells of loss, which is counted elsewhere,
    not of absence. New users are judged only when the catalog is affected (or everything is):
    they come too seldom to time one shard's recovery by them.
    """
    touched = [attempt for attempt in affected(ledger, databases) if not denied(attempt)]
    kinds = [CREATE_ORDER, READ_ORDER]
    if not databases or CATALOG in databases:
        kinds.append(CREATE_USER)
    if databases and set(databases) == {CATALOG}:
        kinds = [CREATE_USER]
    return {
        kind: recovery_seconds(
            [attempt for attempt in touched if attempt.kind == kind],
            ledger.end,
            began=began,
            effective=effective,
            hold_seconds=hold_seconds,
            success=success,
        )
        for kind in kinds
    }


def denied(attempt: Attempt) -> bool:
    """An acknowledged order that a reader was told does not exist."""
    return attempt.kind == READ_ORDER and attempt.status == 404


def longest_write_gap(ledger: Ledger, databases: Collection[str]) -> float | None:
    """The longest time, in seconds, between two successive acknowledgements of affected writes."""
    acks = sorted(
        attempt.done
        for attempt in affected(ledger, databases)
        if attempt.ok and attempt.kind in WRITES and attempt.done is not None
    )
    return max((later - earlier for earlier, later in pairwise(acks)), default=None)


def longest_wait(ledger: Ledger) -> float | None:
    """The longest time, in seconds, from sending a write until it was acknowledged."""
    waits = (a.done - a.sent for a in ledger.arrivals if a.kind in WRITES and a.ok and a.done)
    return max(waits, default=None)


def loss(ledger: Ledger, readback: Mapping[str, Any], *, until: float) -> Loss:
    """What `readback` did not find of what the ledger saw acknowledged.

    `until` is when the fault had taken full effect: the last moment that an acknowledgement could
    come from what was lost.

    Raises `MeasurementVoid` when the read-back did not look for every acknowledged write.
    """
    acknowledged = {a.record: a for a in ledger.attempts if a.ok and a.kind in WRITES}
    if readback["acknowledged"] != len(acknowledged):
        raise MeasurementVoid(
            f"The read-back looked for {readback['acknowledged']} writes, but "
            f"{len(acknowledged)} were acknowledged.",
            hint="Run the drill again.",
        )
    missing = [acknowledged[record] for record in readback["missing"] if record in acknowledged]
    oldest = min((a.done for a in missing if a.done is not None), default=None)
    return Loss(
        count=len(missing),
        value_cents=sum(a.amount_cents or 0 for a in missing),
        seconds=None if oldest is None else until - oldest,
        records=tuple(str(a.record) for a in missing),
        wrong=len(readback["wrong"]),
        duplicated=len(readback["duplicates"]),
    )


def success_over(ledger: Ledger, seconds: float) -> float:
    """The share (0..1) of the arrivals of the last `seconds` that succeeded; 0 without enough.

    Attempts younger than the newest answer that are still in flight are not judged yet.
    """
    since = ledger.end - seconds
    if ledger.ready is None or ledger.ready > since:
        return 0.0
    recent = [a for a in ledger.arrivals if (a.done or a.sent) >= since]
    answered = [a for a in recent if a.done is not None]
    hung = [a for a in ledger.arrivals if a.done is None and a.sent < ledger.end - 1.0]
    return sum(a.ok for a in answered) / (len(answered) + len(hung)) if answered else 0.0


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The nearest-rank percentile: always one of the measured values."""
    if not values:
        return None
    ordered = sorted(values)
    ranks = list(accumulate([100.0 / len(ordered)] * len(ordered)))
    return ordered[min(bisect_left(ranks, percent - 1e-9), len(ordered) - 1)]
