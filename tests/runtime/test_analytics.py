"""Events become objects whose names and bytes depend on nothing but the events."""

from __future__ import annotations

import gzip
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runtime.analytics import Entry, by_hour, lines, object_key

HOUR = 3_600_000


def lines_of(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(body).decode().splitlines()]


def entry(milliseconds: int, number: int = 0, payload: bytes = b'{"order_id":7}') -> Entry:
    fields = {b"id": b"7", b"kind": b"OrderCreated", b"payload": payload}
    return f"{milliseconds}-{number}".encode(), fields


def test_an_object_is_named_by_its_day_hour_and_entries() -> None:
    entries = [entry(HOUR * 25 + 5, 9), entry(HOUR * 25 + 5, 10)]
    assert by_hour(entries[::-1]) == [entries]
    key = object_key(entries)
    assert key == "day=1970-01-02/hour=01/90000005-9-90000005-10.jsonl.gz"


def test_a_line_tells_the_event_and_when_it_was_sent() -> None:
    (line,) = lines_of(lines([entry(1500)]))
    assert line == {
        "stream_id": "1500-0",
        "at": "1970-01-01T00:00:01.500+00:00",
        "id": "7",
        "kind": "OrderCreated",
        "payload": {"order_id": 7},
    }


@given(st.lists(st.tuples(st.integers(0, 4 * HOUR), st.binary(max_size=20)), max_size=20))
def test_every_entry_is_in_one_object_of_its_hour(given: list[tuple[int, bytes]]) -> None:
    entries = [entry(at, number, payload) for number, (at, payload) in enumerate(given)]
    runs = by_hour(entries)
    assert sorted(each[0] for run in runs for each in run) == sorted(each[0] for each in entries)
    assert len({object_key(run) for run in runs}) == len(runs)
    for run in runs:
        assert len({int(each[0].split(b"-")[0]) // HOUR for each in run}) == 1
        kept = lines_of(lines(run))
        assert [line["stream_id"].encode() for line in kept] == [each[0] for each in run]
        assert lines(run) == lines(list(run))
