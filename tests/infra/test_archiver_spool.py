"""What becomes of the files in the archiver's spool."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from infra.local.backups import spool
from infra.local.backups.spool import SEGMENT, Bound, Gap, Mark, Place, Server

S = SEGMENT


def name(timeline: int, number: int, *, partial: bool = False) -> str:
    return Place(number, timeline).name + (".partial" if partial else "")


def read(*names: str) -> spool.Spool:
    return spool.read([(each, S) for each in names])


PLACES = st.builds(Place, st.integers(0, 1 << 40), st.integers(1, (1 << 32) - 1))


@given(PLACES)
def test_a_name_says_its_segment_and_back(place: Place) -> None:
    if place.number // 256 < 1 << 32:
        assert spool.parse(place.name) == (place, True)
        assert spool.parse(f"{place.name}.partial") == (place, False)


def test_files_that_are_no_wal_are_left_alone() -> None:
    found = spool.read([("receiver.pid", 3), ("state.json", 9), ("00000002.history", 40)])
    assert found == spool.Spool((), ("00000002.history",))


def test_only_half_made_files_are_broken() -> None:
    found = spool.read([(name(1, 1), 5), (name(1, 2), S), (name(1, 3, partial=True), 0)])
    assert spool.broken(found) == (name(1, 1),)
    assert spool.broken(spool.read([(name(1, 3, partial=True), 100)])) != ()


def test_receiving_goes_on_at_the_newest_file_when_the_server_has_that_history() -> None:
    found = read(name(1, 4), name(1, 5, partial=True))
    server = Server(7, 1, (), 5 * S + 100, 5 * S)
    assert spool.begin(found, server, Mark(1, 5)) == spool.Begin()


def test_what_a_promoted_server_never_had_is_set_aside() -> None:
    found = read(name(1, 4), name(1, 5), name(1, 6, partial=True))
    server = Server(7, 2, ((1, 5 * S + 300),), 5 * S + 900, 5 * S)
    begin = spool.begin(found, server, Mark(1, 6))
    assert begin == spool.Begin(aside=(name(1, 5), name(1, 6, partial=True)))


def test_without_files_it_goes_on_where_the_archive_ends_and_the_histories_still_agree() -> None:
    server = Server(7, 2, ((1, 5 * S + 300),), 9 * S, 9 * S)
    assert spool.begin(read(), server, Mark(1, 9)).seed == name(1, 5, partial=True)
    assert spool.begin(read(), server, Mark(1, 3)).seed == name(1, 3, partial=True)
    assert spool.begin(read(), server, Mark(2, 8)).seed == name(2, 8, partial=True)
    assert spool.begin(read(), server, None).seed == name(2, 9, partial=True)


def test_wal_that_the_server_no_longer_has_is_a_gap_from_what_is_whole_here() -> None:
    found = read(name(1, 3), name(1, 4, partial=True))
    server = Server(7, 1, (), 20 * S + 5, 19 * S + 7)
    begin = spool.begin(found, server, Mark(1, 3), lost=True)
    assert begin.seed == name(1, 19, partial=True)
    assert begin.aside == (name(1, 3), name(1, 4, partial=True))
    assert begin.gap == Gap(4 * S, 19 * S, 1, "the server no longer has it")


def test_nothing_archived_before_is_no_gap() -> None:
    server = Server(7, 1, (), 20 * S + 5, 19 * S + 7)
    assert spool.begin(read(), server, None, lost=True).gap is None


def test_a_timeline_that_the_server_does_not_know_is_a_gap() -> None:
    server = Server(7, 3, ((1, 5 * S),), 8 * S, 7 * S)
    begin = spool.begin(read(name(2, 6)), server, Mark(2, 6))
    assert begin.aside == (name(2, 6),)
    assert begin.seed == name(3, 7, partial=True)
    assert begin.gap is not None


def test_histories_go_first_and_the_newest_partial_only_when_due() -> None:
    found = read("00000002.history", name(1, 5, partial=True), name(2, 5), name(2, 6, partial=True))
    quiet = spool.work(found, (), partial_due=False)
    assert quiet.upload == ("00000002.history", name(1, 5, partial=True), name(2, 5))
    due = spool.work(found, quiet.upload, partial_due=True)
    assert due.upload == (name(2, 6, partial=True),)
    assert due.drop == (name(1, 5, partial=True),)


FILES = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 9), st.booleans()), unique=True)


@given(FILES, st.data())
def test_nothing_is_dropped_before_it_is_uploaded_nor_what_receiving_stands_on(
    files: list[tuple[int, int, bool]], data: st.DataObject
) -> None:
    names = [name(t, n, partial=p) for t, n, p in files]
    uploaded = data.draw(st.sets(st.sampled_from(names))) if names else set()
    found = read(*names)
    work = spool.work(found, uploaded, partial_due=data.draw(st.booleans()))
    assert set(work.drop) <= uploaded
    assert not set(work.drop) & set(work.upload)
    assert found.newest is None or found.newest.name not in work.drop
    whole = {f.name for f in found.files if f.whole}
    assert whole <= uploaded | set(work.upload)


@given(st.lists(st.integers(1, 30), min_size=1))
def test_every_missing_segment_is_in_a_gap(numbers: list[int]) -> None:
    mark: Mark | None = None
    missed: list[int] = []
    for number in numbers:
        mark, gap = spool.advance(mark, Place(number, 1))
        if gap:
            missed += range(gap.begin // S, gap.end // S)
    assert mark is not None
    first = numbers[0]
    highest: set[int] = set()
    top = first - 1
    for number in numbers:
        if number > top:
            highest.add(number)
            top = number
    assert mark.following == top + 1
    assert set(missed) == set(range(first, top + 1)) - highest


def test_a_new_timeline_in_the_same_segment_is_no_gap() -> None:
    assert spool.advance(Mark(1, 6), Place(5, 2)) == (Mark(2, 6), None)
    assert spool.advance(Mark(2, 6), Place(8, 1)) == (Mark(2, 6), None)


def test_too_much_in_the_spool_alarms_then_gives_up_the_largest_then_resumes() -> None:
    bound = Bound(100)
    assert (bound.alarms(50), bound.alarms(51)) == (False, True)
    assert bound.gives_up({"s1": 60, "s2": 40}, 100) is None
    assert bound.gives_up({"s1": 60, "s2": 41}, 101) == "s1"
    assert bound.gives_up({}, 200) is None
    assert (bound.resumes(51), bound.resumes(50)) == (False, True)
