"""Moving slots in the provider's world in memory.

What a move leaves in the databases (rows, fence states, attempts) lies in the nodes and replicates
with them; the streams are in `infra/memory_streams.py`. Trouble is planted from outside: `refused`
names a shard's reason for `check`, `stuck` how many more fences there cannot be drained, and `at`
is called between any two effects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from infra.memory_streams import MemoryStreams, Primaries, sides
from infra.memory_world import SEGMENT, MemoryWorld
from infra.moves import Compared, Handover, Pause, Progress, require_known
from runtime.errors import Problem, Refused, Unavailable
from runtime.shardmap import Move, Shard, ShardMap

COPY_LOOKS = 3  # a copy is done when `progress` was asked so often
PAUSE_SECONDS = 0.02
OWNED = ("owned", "fencing")
Rows = dict[int, list[str]]


class MemoryMoves(MemoryStreams):
    """See `infra.moves.Moves` for what each verb promises."""

    def __init__(self, world: MemoryWorld) -> None:
        super().__init__(world)
        self.refused: dict[str, str] = {}
        self.stuck: dict[str, int] = {}
        self.at: Callable[[str], None] = lambda stage: None
        self._snapshots: dict[tuple[int, tuple[int, ...]], tuple[Primaries, tuple[Rows, Rows]]] = {}

    async def sizes(self, shard_map: ShardMap) -> dict[str, dict[int, tuple[int, int]]]:
        found: dict[str, dict[int, tuple[int, int]]] = {}
        for name, shard in shard_map.shards.items():
            rows = self.primary(shard).rows() if shard_map.slots_of(name) else {}
            found[name] = {
                slot: (len(rows.get(slot, ())), len(rows.get(slot, ())) * SEGMENT)
                for owned in shard_map.slots_of(name)
                for slot in range(owned.first, owned.last + 1)
            }
        return {name: sizes for name, sizes in found.items() if sizes}

    async def check(self, move: Move, shard_map: ShardMap) -> None:
        for name in (move.source, move.target):
            if name in self.refused:
                raise Refused(f"{name}: {self.refused[name]}.", hint="regionctl status")
            shard = shard_map.shards[name]
            self.primary(shard)
            if not shard.sync:
                raise Unavailable(f"{name} has no standby in sync.", hint="regionctl up")
        if (move.id, False) in self.streams:
            return
        target = self.primary(shard_map.shards[move.target])
        rows = target.rows()
        taken = [slot for slot in _slots(move) if slot in rows or slot in target.fences]
        if taken:
            raise Refused(
                f"{move.target} already has something of slots {taken[0]} to {taken[-1]}.",
                hint="regionctl shard abort",
            )

    async def start(self, move: Move, shard_map: ShardMap) -> None:
        source, target = sides(move, shard_map)
        self._lift(move, shard_map)
        if all(self.lives(move, shard_map, back=back) for back in (False, True)):
            return
        left = self._left(move, target)
        moved = [slot for slot in _slots(move) if slot not in left]
        self.remove(target, left)
        self.remove(source, moved)
        self.open(move, shard_map, moved, back=True)
        self.open(move, shard_map, left, back=False)

    async def progress(self, move: Move, shard_map: ShardMap) -> Progress:
        source, target = sides(move, shard_map)
        for back, subscriber in ((False, target), (True, source)):
            stream = self.streams.get((move.id, back))
            if stream is None or not self.lives(move, shard_map, back=back):
                why = (stream.problem if stream else None) or "the stream is lost"
                conflict = stream is not None and stream.conflict
                return Progress(0, 0, False, None, False, why, conflict)
            if not stream.held:
                waiting = [slot for slot in stream.slots if slot not in stream.since]
                self.copy(stream, subscriber, waiting[: -(-len(stream.slots) // COPY_LOOKS)])
                self.follow(move, shard_map, back=back)
        rows, copied = self.primary(source).rows(), self.primary(target).rows()
        both = [self.streams[move.id, back] for back in (False, True)]
        problem = both[0].problem or both[1].problem
        return Progress(
            rows=sum(len(rows.get(slot, ())) for slot in _slots(move)),
            copied=sum(len(copied.get(slot, ())) for slot in _slots(move)),
            ready=all(len(stream.since) == len(stream.slots) for stream in both),
            lag_bytes=self.behind(both[0]) * SEGMENT,
            healthy=problem is None,
            problem=problem,
            conflict=any(stream.conflict for stream in both),
        )

    async def hold(self, move: Move, shard_map: ShardMap, *, on: bool) -> None:
        for back in (False, True):
            if (move.id, back) in self.streams:
                self.streams[move.id, back].held = on

    async def rehearse(
        self, move: Move, shard_map: ShardMap, slots: Sequence[int], *, budget_seconds: float
    ) -> tuple[Handover, Compared]:
        source, target = sides(move, shard_map)
        self.require(move, shard_map)
        attempt = self._begin_attempt(move, target)
        self._fence(source, slots, shard_map, budget_seconds)
        try:
            both = self._drained(move, shard_map, slots, back=False)
        except Problem:
            self._unfence(source, slots, shard_map)
            raise
        self._unfence(source, slots, shard_map)
        epoch = max(shard_map.place(slot).epoch for slot in slots)
        return self._paused(epoch, attempt), _compare(slots, *both)

    async def hand_over(
        self,
        move: Move,
        shard_map: ShardMap,
        slots: Sequence[int],
        *,
        budget_seconds: float,
        back: bool = False,
    ) -> Handover:
        old, new = sides(move, shard_map)[:: -1 if back else 1]
        known = self.primary(new).fences
        done = [slot for slot in slots if known.get(slot, ("",))[0] == "owned"]
        if done and len(done) < len(slots):
            raise Refused(f"{new.name} owns {len(done)} of {len(slots)} slots of this batch.")
        if done:
            epoch = max(known[slot][1] for slot in slots)
            published = all(shard_map.place(slot).shard.name == new.name for slot in slots)
            if not published and epoch < shard_map.next_epoch():
                # A failover took an epoch since; nobody was ever told this one.
                epoch = shard_map.next_epoch()
                self._set(new, slots, "owned", epoch)
            self._set(old, slots, "moved", epoch)
            return Handover(epoch, self.primary(new).attempts.get(move.id, 0))
        self.require(move, shard_map, back=True)
        if not back:
            self.require(move, shard_map)
        attempt = self._begin_attempt(move, new)
        self._fence(old, slots, shard_map, budget_seconds)
        try:
            both = self._drained(move, shard_map, slots, back=back)
            epoch = self._take_over(move, shard_map, slots, attempt, old, new)
        except Problem:
            if self.primary(new).attempts.get(move.id) == attempt:
                self._unfence(old, slots, shard_map)
            raise
        self._snapshots[move.id, tuple(slots)] = self.between(move, shard_map), both
        self.at("owned")
        self._set(old, slots, "moved", epoch)
        self.at("moved")
        return self._paused(epoch, attempt)

    def _paused(self, epoch: int, attempt: int) -> Handover:
        pause = Pause(self.world.clock)
        pause.began -= PAUSE_SECONDS
        pause.passed("fence")
        return Handover(epoch, attempt, pause)

    async def compare(self, move: Move, shard_map: ShardMap, slots: Sequence[int]) -> Compared:
        between, both = self._snapshots.pop((move.id, tuple(slots)), (None, None))
        if both is None or between != self.between(move, shard_map):
            target = sides(move, shard_map)[1]
            back = not set(slots) & set(self._left(move, target))
            self.require(move, shard_map, back=back)
            both = self._drained(move, shard_map, slots, back=back)
        return _compare(slots, *both)

    async def owners(self, move: Move, shard_map: ShardMap) -> dict[int, tuple[str, int]]:
        source, target = sides(move, shard_map)
        self._lift(move, shard_map)
        left = self._left(move, target)
        for shard in (source, target):
            self._begin_attempt(move, shard)
        return {
            slot: (shard.name, self.primary(shard).fences[slot][1])
            for slot in _slots(move)
            for shard in [source if slot in left else target]
        }

    async def finish(self, move: Move, shard_map: ShardMap) -> None:
        shards = sides(move, shard_map)
        nodes = [self.primary(shard) for shard in shards]
        owned = await self.owners(move, shard_map)
        require_known({slot: name for slot, (name, _) in owned.items()}, shard_map)
        for back in (False, True):
            self.streams.pop((move.id, back), None)
        for shard, node in zip(shards, nodes, strict=True):
            foreign = [s for s in _slots(move) if node.fences.get(s, ("",))[0] not in OWNED]
            self.remove(shard, foreign)
            node.fences = {s: known for s, known in node.fences.items() if s not in foreign}
            node.attempts = {id: n for id, n in node.attempts.items() if id != move.id}
            self.need_commit(shard)
        for key in [key for key in self._snapshots if key[0] == move.id]:
            del self._snapshots[key]

    # The fence.

    def _fence(
        self, old: Shard, slots: Sequence[int], shard_map: ShardMap, budget_seconds: float
    ) -> None:
        """Writers of `slots` are refused, and those who were inside have ended."""
        known = self.primary(old).fences
        for slot in slots:
            state = known.get(slot, ("absent",))[0]
            # A crash between the two owner rows can leave the old side "moved" for nobody.
            if state not in (*OWNED, "moved"):
                raise Refused(f"Slot {slot} is {state} on {old.name}.", hint="regionctl shard map")
        self._change(old, fences={slot: ("fencing", known[slot][1]) for slot in slots})
        self.at("fenced")
        if self.stuck.get(old.name, 0) > 0:
            self.stuck[old.name] -= 1
            self._unfence(old, slots, shard_map)
            raise Refused(
                f"{old.name} has transactions that did not end within {budget_seconds:g} s.",
                hint="It is tried again; regionctl shard pause stops that.",
            )
        self.at("drained")

    def _unfence(self, old: Shard, slots: Sequence[int], shard_map: ShardMap) -> None:
        """The owner is the one it was, under the newest of the epochs that it was given."""
        known = self.primary(old).fences
        self._change(
            old,
            fences={
                slot: ("owned", max(known[slot][1], shard_map.place(slot).epoch)) for slot in slots
            },
        )

    def _drained(
        self, move: Move, shard_map: ShardMap, slots: Sequence[int], *, back: bool
    ) -> tuple[Rows, Rows]:
        """The new side has everything; source's and target's rows at that moment."""
        self.follow(move, shard_map, back=back)
        source, target = sides(move, shard_map)
        self.at("marked")
        here, there = self.primary(source).rows(), self.primary(target).rows()
        return {s: here.get(s, []) for s in slots}, {s: there.get(s, []) for s in slots}

    def _begin_attempt(self, move: Move, new: Shard) -> int:
        """From here on no older attempt can make `new` the owner of anything."""
        attempt = 1 + self.primary(new).attempts.get(move.id, 0)
        self._change(new, attempts={move.id: attempt})
        return attempt

    def _take_over(
        self,
        move: Move,
        shard_map: ShardMap,
        slots: Sequence[int],
        attempt: int,
        old: Shard,
        new: Shard,
    ) -> int:
        """The point of no return: `new` owns the slots under the epoch that is returned."""
        if self.primary(new).attempts.get(move.id) != attempt:
            raise Refused(f"A newer attempt at move {move.id} is under way.", hint="op list")
        known = [self.primary(shard).fences for shard in (old, new)]
        epochs = [each[slot][1] for each in known for slot in slots if slot in each]
        epoch = max(shard_map.next_epoch(), 1 + max(epochs))
        self._set(new, slots, "owned", epoch)
        return epoch

    def _lift(self, move: Move, shard_map: ShardMap) -> None:
        """The fence of somebody who died in the middle is taken away, and his attempt is void."""
        source, target = sides(move, shard_map)
        for old, new in ((source, target), (target, source)):
            here, there = self.primary(old).fences, self.primary(new).fences
            left = [
                slot
                for slot in _slots(move)
                if here.get(slot, ("",))[0] == "fencing" and there.get(slot, ("",))[0] != "owned"
            ]
            if left:
                self._begin_attempt(move, new)
                self._unfence(old, left, shard_map)

    def _set(self, shard: Shard, slots: Sequence[int], state: str, epoch: int) -> None:
        known = self.primary(shard).fences
        fences = {slot: (state, max(epoch, known.get(slot, ("", 0))[1])) for slot in slots}
        self._change(shard, fences=fences)

    def _change(
        self,
        shard: Shard,
        *,
        fences: dict[int, tuple[str, int]] | None = None,
        attempts: dict[int, int] | None = None,
    ) -> None:
        node = self.primary(shard)
        self.need_commit(shard)
        node.fences = {**node.fences, **(fences or {})}
        node.attempts = {**node.attempts, **(attempts or {})}
        self.need_commit(shard)

    def _left(self, move: Move, target: Shard) -> tuple[int, ...]:
        """The slots that are not the target's yet."""
        known = self.primary(target).fences
        return tuple(slot for slot in _slots(move) if known.get(slot, ("",))[0] != "owned")


def _slots(move: Move) -> range:
    return range(move.first, move.last + 1)


def _compare(slots: Sequence[int], source: Rows, target: Rows) -> Compared:
    different = tuple(s for s in slots if sorted(source.get(s, ())) != sorted(target.get(s, ())))
    return Compared(sum(len(source.get(s, ())) for s in slots), not different, different)
