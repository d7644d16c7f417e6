"""The two streams of a move in memory, and what both sides of it have.

A stream belongs to the two primaries between which it was made: a failover of either loses it. It
carries what clients wrote at the publisher, and nothing that another stream brought.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from infra.memory_world import ROW, MemoryWorld, Node
from runtime.errors import Refused, TimedOut
from runtime.shardmap import Move, Shard, ShardMap

Primaries = tuple[tuple[str, int], ...]
"""The (instance, timeline) of both sides, the source's first."""


@dataclass
class Stream:
    """What `publisher` has of `slots` goes on to the other side while it lives.

    `since` says from which place of the publisher's history on each slot streams; a slot that is
    not in it is still to be copied.
    """

    publisher: str
    between: Primaries
    slots: tuple[int, ...]
    since: dict[int, int] = field(default_factory=dict)
    held: bool = False
    problem: str | None = None
    conflict: bool = False


class MemoryStreams:
    """`streams` has them by move id and whether they go back."""

    def __init__(self, world: MemoryWorld) -> None:
        self.world = world
        self.streams: dict[tuple[int, bool], Stream] = {}

    def open(self, move: Move, shard_map: ShardMap, to_copy: Sequence[int], *, back: bool) -> None:
        """A new stream of all slots of the move, of which those are copied first."""
        publisher = sides(move, shard_map)[back].primary.instance
        slots = tuple(range(move.first, move.last + 1))
        follows = [slot for slot in slots if slot not in to_copy]
        since = dict.fromkeys(follows, len(self.world.nodes[publisher].wal))
        stream = Stream(publisher, self.between(move, shard_map), slots, since)
        self.streams[move.id, back] = stream

    def between(self, move: Move, shard_map: ShardMap) -> Primaries:
        """The primaries as they are now; one that is gone or none has timeline 0."""
        found = []
        for shard in sides(move, shard_map):
            node = self.world.nodes.get(shard.primary.instance)
            timeline = node.timeline if node is not None and node.primary else 0
            found.append((shard.primary.instance, timeline))
        return tuple(found)

    def lives(self, move: Move, shard_map: ShardMap, *, back: bool = False) -> bool:
        """Whether that stream has no problem, and both primaries are the same still."""
        stream = self.streams.get((move.id, back))
        return (
            stream is not None
            and stream.problem is None
            and stream.between == self.between(move, shard_map)
        )

    def require(self, move: Move, shard_map: ShardMap, *, back: bool = False) -> None:
        """Raises `Refused` unless the stream has copied everything and goes on."""
        stream = self.streams.get((move.id, back))
        if stream is None or not self.lives(move, shard_map, back=back):
            raise Refused(
                f"The stream {'back ' if back else ''}of move {move.id} is lost.",
                hint="The operation begins it anew.",
            )
        if stream.held or len(stream.since) < len(stream.slots):
            raise Refused(f"Move {move.id} is held, or its copy is not done.")

    def copy(self, stream: Stream, to: Shard, slots: Sequence[int]) -> None:
        """Rows of `slots` as they are now; a row that is there already stops the stream."""
        source, target = self.world.nodes[stream.publisher], self.primary(to)
        rows, there = source.rows(), target.rows()
        for slot in slots:
            if there.get(slot):
                stream.problem = f"conflict: slot {slot} has rows on {to.name}"
                stream.conflict = True
                return
            target.wal += [f"{slot}~{id}" for id in rows.get(slot, ())]
            stream.since[slot] = len(source.wal)
        self.need_commit(to)

    def follow(self, move: Move, shard_map: ShardMap, *, back: bool) -> None:
        """What clients wrote at the publisher since it was last looked at is on the other side."""
        stream = self.streams.get((move.id, back))
        if stream is None or stream.held or not self.lives(move, shard_map, back=back):
            return
        source = self.world._answering(stream.publisher)
        subscriber = sides(move, shard_map)[not back]
        target = self.primary(subscriber)
        there = target.rows()
        for place, entry in enumerate(source.wal):
            row = ROW.fullmatch(entry)
            if row is None or row[3] or "/" not in entry:
                continue
            slot, id = int(row[1]), row[2]
            if slot in stream.since and place >= stream.since[slot]:
                if id in there.get(slot, ()):
                    stream.problem = f"conflict: {subscriber.name} has row {id} of slot {slot}"
                    stream.conflict = True
                    return
                target.wal.append(f"{slot}~{id}")
        stream.since = dict.fromkeys(stream.since, len(source.wal))
        self.need_commit(subscriber)

    def behind(self, stream: Stream) -> int:
        """How many writes the other side has not confirmed."""
        end = len(self.world.nodes[stream.publisher].wal)
        return end - min(stream.since.values(), default=end)

    # One side.

    def remove(self, shard: Shard, slots: Iterable[int]) -> None:
        """Rows of `slots` are gone; no stream carries that on."""
        node = self.primary(shard)
        rows = node.rows()
        node.wal += [f"-{slot}" for slot in slots if slot in rows]
        self.need_commit(shard)

    def primary(self, shard: Shard) -> Node:
        """The primary that the map names. Raises `Unavailable`, `Refused` when it is none."""
        node = self.world._answering(shard.primary.instance)
        if not node.primary:
            raise Refused(f"{shard.primary.instance} is no primary.", hint="regionctl status")
        return node

    def need_commit(self, shard: Shard) -> None:
        """Raises `TimedOut` while a commit would wait for a standby."""
        instance = shard.primary.instance
        if not self.world._commit(instance):
            raise TimedOut(f"A commit on {instance} waits for a standby.", hint="regionctl status")


def sides(move: Move, shard_map: ShardMap) -> tuple[Shard, Shard]:
    """Source and target."""
    return shard_map.shards[move.source], shard_map.shards[move.target]
