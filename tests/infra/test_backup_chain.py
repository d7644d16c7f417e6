"""What may be removed, what a target needs, and what is refused: pure, over invented archives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.backups import Backup, Target
from infra.local.backups import chain
from infra.local.backups.chain import SEGMENT_BYTES, Extent, Stop, Wal
from infra.lsn import parse_history
from runtime.errors import NotFound, OperationFailed

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def backup(
    id: str, start: int, *, parent: str | None = None, timeline: int = 1, at: int = 0
) -> Backup:
    """Its `start` in segments; it took a tenth of one, and began `at` minutes after T0."""
    began = T0 + timedelta(minutes=at)
    return Backup(
        id=id,
        database="s1",
        kind="incremental" if parent else "full",
        parent=parent,
        region="us-west-2",
        timeline=timeline,
        start=start * SEGMENT_BYTES,
        stop=start * SEGMENT_BYTES + SEGMENT_BYTES // 10,
        began_at=began,
        ended_at=began + timedelta(seconds=10),
        bytes=1,
        stored=1,
        pieces=1,
        map_version=1,
    )


FULL, NEXT, LAST = (
    backup("f", 2),
    backup("i1", 4, parent="f", at=10),
    backup("i2", 6, parent="i1", at=20),
)


def wal(*numbers: int, partial: int | None = None) -> Wal:
    whole = frozenset((1, number) for number in numbers)
    return Wal(whole, frozenset() if partial is None else frozenset({(1, partial)}))


def test_a_chain_is_its_full_backup_and_every_link() -> None:
    assert chain.chain_of([LAST, FULL, NEXT], "i2") == (FULL, NEXT, LAST)
    with pytest.raises(NotFound):
        chain.chain_of([FULL], "i1")
    with pytest.raises(OperationFailed, match="i1"):
        chain.chain_of([FULL, LAST], "i2")


@pytest.mark.parametrize("segment", [(1, 0), (1, 255), (1, 256), (3, 259), (0xAB, 0x1_0000_0000)])
def test_names_of_segments_are_read_back(segment: chain.Segment) -> None:
    assert chain.parse_segment(chain.segment_name(segment)) == (segment, True)
    assert chain.parse_segment(chain.segment_name(segment) + ".partial") == (segment, False)


def test_names_are_those_of_postgresql() -> None:
    assert chain.segment_name((1, 259)) == "000000010000000100000003"
    assert chain.parse_segment("00000002.history") is None
    assert chain.parse_history_name("0000000B.history") == 11
    assert parse_history("1\t0/3000148\tno recovery target\n\n2\t1/0\tbefore\n") == (
        (1, 0x3000148),
        (2, 1 << 32),
    )


def test_a_run_ends_at_a_hole_and_with_a_partial_segment() -> None:
    assert chain.run(wal(2, 3, 5), FULL) == ((1, 2), (1, 3))
    assert chain.hole_after(wal(2, 3, 5), chain.run(wal(2, 3, 5), FULL)) is not None
    assert chain.run(wal(2, 3, partial=4), FULL) == ((1, 2), (1, 3), (1, 4))
    assert chain.hole_after(wal(2, 3), ((1, 2), (1, 3))) is None
    assert chain.run(wal(3), FULL) == ()


def test_a_run_crosses_to_the_newer_timeline_in_the_segment_of_the_fork() -> None:
    fork = 4 * SEGMENT_BYTES + 1000
    history = {2: ((1, fork),)}
    both = Wal(frozenset({(1, 2), (1, 3), (2, 4), (2, 5)}), frozenset({(1, 4)}), history)
    assert chain.run(both, FULL) == ((1, 2), (1, 3), (2, 4), (2, 5))
    assert chain.on_path(both, FULL)
    assert not chain.on_path(both, backup("late", 5))
    assert chain.on_path(both, backup("new", 5, timeline=2))
    without = Wal(both.segments - {(2, 4)}, both.partial, history)
    assert chain.run(without, FULL)[-1] == (1, 4)
    assert chain.hole_after(without, chain.run(without, FULL)) is not None


def test_a_timeline_without_its_history_is_not_believed() -> None:
    assert chain.newest_timeline(Wal(frozenset({(1, 1), (7, 2)}))) == 1
    assert chain.newest_timeline(Wal()) is None


EXTENT = Extent(9 * SEGMENT_BYTES, 9 * SEGMENT_BYTES + 80, T0 + timedelta(hours=1))


def test_only_what_the_archive_proves_can_be_a_target() -> None:
    def judged(**target: object) -> Stop | None:
        return chain.judge(FULL, EXTENT, Target(**target))  # type: ignore[arg-type]

    assert judged() == Stop()
    assert judged(lsn=FULL.stop) == Stop(lsn=FULL.stop)
    assert judged(lsn=FULL.stop - 1) is None
    assert judged(lsn=EXTENT.last) == Stop(lsn=EXTENT.last)
    assert judged(lsn=EXTENT.end) == Stop()
    assert judged(lsn=EXTENT.end + 1) is None
    assert judged(time=FULL.ended_at) == Stop(time=FULL.ended_at)
    assert judged(time=FULL.ended_at - timedelta(milliseconds=1)) is None
    assert judged(time=EXTENT.commit_at) == Stop()
    assert judged(time=T0 + timedelta(hours=2)) is None
    assert chain.judge(FULL, Extent(0, FULL.stop - 1), Target()) is None


def test_a_refusal_says_what_is_possible() -> None:
    problem = chain.refuse("s1", Target(lsn=1), [(FULL, EXTENT)], hole="x is missing")
    assert "from 2026-01-01T00:00:10" in problem.detail
    assert "x is missing" in problem.detail
    assert "Nothing is possible" in chain.refuse("s1", Target(), [], hole=None).detail


@st.composite
def histories(draw: st.DrawFn) -> list[Backup]:
    """Backups of one database in the order in which they were taken, over growing timelines."""
    made: list[Backup] = []
    start, timeline = 1, 1
    for index in range(draw(st.integers(1, 12))):
        start += draw(st.integers(0, 3))
        timeline += draw(st.integers(0, 1)) * draw(st.integers(0, 1))
        same = [each for each in made if each.timeline == timeline]
        parent = same[-1].id if same and draw(st.booleans()) else None
        made.append(backup(f"b{index}", start, parent=parent, timeline=timeline, at=index))
    return made


@given(histories(), st.integers(1, 4))
def test_pruning_never_orphans_a_chain_nor_wal_that_a_kept_backup_needs(
    backups: list[Backup], keep: int
) -> None:
    gone = chain.doomed(backups, keep)
    kept = [each for each in backups if each.id not in gone]
    assert kept
    assert chain.whole(kept) == tuple(kept)
    fulls = [each for each in backups if each.parent is None]
    assert [each for each in kept if each.parent is None] == fulls[-keep:]
    newest = max(each.timeline for each in backups)
    last = max(each.start for each in backups) // SEGMENT_BYTES + 3
    everything = {(t, n) for t in range(1, newest + 1) for n in range(last + 1)}
    removed = chain.spare(everything, kept)
    for each in kept:
        needed = {
            (t, n) for t, n in everything if t >= each.timeline and n >= each.start // SEGMENT_BYTES
        }
        assert not needed & removed


@given(histories())
def test_children_are_removed_before_what_they_build_on(backups: list[Backup]) -> None:
    gone = chain.doomed(backups, 1)
    parents = {each.id: each.parent for each in backups}
    for place, id in enumerate(gone):
        assert parents[id] not in gone[:place]


def test_a_backup_that_lost_a_link_is_removed_and_never_counts() -> None:
    orphan = backup("lost", 9, parent="never", at=99)
    assert chain.doomed([FULL, orphan], 1) == ("lost",)
    assert chain.spare({(1, 1), (1, 2)}, []) == frozenset()
    assert chain.spare({(1, 1), (1, 2)}, [FULL]) == {(1, 1)}
