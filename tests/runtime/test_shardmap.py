"""Properties of the shard map."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

from hypothesis import given
from hypothesis import strategies as st

from runtime.shardmap import SLOTS, Endpoint, Shard, ShardMap, even_ranges, slot_of

IDS = st.integers(min_value=1, max_value=2**63 - 1)


def end(instance: str) -> Endpoint:
    return Endpoint(instance, "r", "a", "127.0.0.1", 5432)


def a_map(shards: int) -> ShardMap:
    names = [f"s{number}" for number in range(1, shards + 1)]
    return ShardMap(
        version=1,
        ranges=even_ranges(names, 1),
        shards={
            name: Shard(name, 1, "r", end(f"{name}.ra"), (end(f"{name}.rb"), end(f"{name}.rc")))
            for name in names
        },
        queues={"r": end("queue.ra")},
    )


def test_slots_are_those_of_postgresql() -> None:
    assert [slot_of(1), slot_of(42), slot_of(123456789012345)] == [1023, 703, 988]


@given(st.integers(1, 64))
def test_every_slot_has_exactly_one_owner(shards: int) -> None:
    owned = [slot for part in a_map(shards).ranges for slot in range(part.first, part.last + 1)]
    assert sorted(owned) == list(range(SLOTS))


@given(IDS, st.integers(1, 64))
def test_a_user_is_located_where_its_slot_is(user: int, shards: int) -> None:
    whole = a_map(shards)
    assert whole.locate(user) == whole.place(slot_of(user))


@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from("abc")), max_size=12))
def test_epochs_grow_and_are_never_shared_through_any_failovers(
    failovers: list[tuple[int, str]],
) -> None:
    now = a_map(4)
    for number, zone in failovers:
        name = f"s{number}"
        after = now.with_primary(name, end(f"{name}.r{zone}"), home="r")
        assert after.version == now.version + 1
        assert after.shards[name].epoch > max(s.epoch for s in now.shards.values())
        others = {s.epoch for key, s in after.shards.items() if key != name}
        assert after.shards[name].epoch not in others
        assert {owned.epoch for owned in after.slots_of(name)} == {after.shards[name].epoch}
        members = {e.instance for e in (after.shards[name].primary, *after.shards[name].replicas)}
        assert members == {f"{name}.r{z}" for z in "abc"}
        now = after


@given(st.integers(1, 8), st.integers(1, 10**6))
def test_a_map_survives_the_wire(shards: int, version: int) -> None:
    whole = replace(a_map(shards), version=version)
    assert ShardMap.from_json(json.loads(json.dumps(whole.to_json()))) == whole
    assert whole.to_json() == asdict(whole)
