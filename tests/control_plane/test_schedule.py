"""When backups are due, over any history of backups, failures, gaps and other operations."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.decisions import Intent
from control_plane.schedule import (
    FIRST_FULL_SECONDS,
    LONGEST_PAUSE_SECONDS,
    Attempt,
    backups_due,
)
from infra.backups import Archive, Backup, BackupKind
from infra.topology_policies import BackupPolicy

UP = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 86_400.0
POLICY = BackupPolicy()
DATABASES = ("s1", "s2", "catalog")


def after(seconds: float) -> datetime:
    return UP + timedelta(seconds=seconds)


def archive(database: str, *, running: bool = True, gap: str | None = None) -> Archive:
    return Archive(database, running, 1, 0, 0, 0, 0.0, gap)


def backup(database: str, kind: BackupKind, seconds: float) -> Backup:
    at = after(seconds)
    id = f"{database}-{at:%Y%m%dT%H%M%S}-{kind}"
    return Backup(id, database, kind, None, "us-west-2", 1, 0, 0, at, at, 0, 0, 1, 1)


def due(
    *backups: Backup,
    at: float,
    attempts: list[Attempt] | None = None,
    archives: list[Archive] | None = None,
    policy: BackupPolicy = POLICY,
) -> list[tuple[str, str, str | None]]:
    known = [archive("s1")] if archives is None else archives
    intents = backups_due(policy, backups, known, after(at), UP, attempts or [])
    return [(each.verb, each.target, each.asked.get("kind")) for each in intents]


def test_the_first_full_backup_comes_a_minute_after_the_platform_is_up() -> None:
    assert due(at=FIRST_FULL_SECONDS - 1) == []
    assert due(at=FIRST_FULL_SECONDS) == [("backup", "s1", "full")]


def test_incremental_ones_follow_daily_and_full_ones_weekly() -> None:
    first = backup("s1", "full", 60)
    assert due(first, at=60 + DAY - 1) == []
    assert due(first, at=60 + DAY) == [("backup", "s1", "incremental")]
    daily = [backup("s1", "incremental", 60 + day * DAY) for day in range(1, 7)]
    assert due(first, *daily, at=60 + 7 * DAY - 1) == []
    assert due(first, *daily, at=60 + 7 * DAY) == [("backup", "s1", "full")]


def test_slots_that_were_moved_make_an_incremental_one_due() -> None:
    policy, known = POLICY, [archive("s1")]
    first, since = backup("s1", "full", 60), after(500)
    moved = backups_due(policy, [first], known, after(1000), UP, [], since)
    assert [(each.target, each.asked["kind"]) for each in moved] == [("s1", "incremental")]
    later = backup("s1", "incremental", 501)
    assert backups_due(policy, [first, later], known, after(1000), UP, [], since) == []


def test_a_gap_makes_a_full_backup_due_at_once_even_beside_another_backup() -> None:
    torn = [archive("s1", gap="no space"), archive("s2")]
    assert due(at=1, archives=torn) == [("backup", "s1", "full")]
    other = [Attempt("backup", "s2", None), Attempt("drill", "zone-failure", None)]
    assert due(at=1, archives=torn, attempts=other) == [("backup", "s1", "full")]
    just = [Attempt("backup", "s1", after(0), succeeded=True)]
    assert due(at=100, archives=torn[:1], attempts=just) == []
    assert due(at=700, archives=torn[:1], attempts=just) == [("backup", "s1", "full")]


def test_nothing_begins_during_a_drill_or_without_an_archive() -> None:
    assert due(at=100, attempts=[Attempt("drill", "zone-failure", None)]) == []
    assert due(at=100, archives=[archive("s1", running=False)]) == []
    assert due(at=100, archives=[]) == []


@pytest.mark.parametrize(
    ("failures", "pause"), [(1, 60), (2, 120), (3, 240), (9, LONGEST_PAUSE_SECONDS)]
)
def test_after_failures_it_is_tried_ever_more_rarely(failures: int, pause: float) -> None:
    attempts = [Attempt("backup", "s1", after(1000 - n)) for n in range(failures)]
    attempts.append(Attempt("backup", "s1", after(0), succeeded=True))
    assert due(at=1000 + pause - 1, attempts=attempts) == []
    assert due(at=1000 + pause, attempts=attempts) == [("backup", "s1", "full")]


def test_a_failed_backup_of_all_counts_for_each() -> None:
    attempts = [Attempt("backup", "all", after(100))]
    assert due(at=159, attempts=attempts, archives=[archive("s1"), archive("s2")]) == []


def test_old_chains_are_pruned_when_there_are_more_than_are_kept() -> None:
    policy = replace(POLICY, keep_full=2)
    fulls = [backup("s1", "full", week * 7 * DAY) for week in range(3)]
    now = 14 * DAY + 1000
    assert due(*fulls[1:], at=now, policy=policy) == []
    assert due(*fulls, at=now, policy=policy) == [("prune", "platform", None)]
    pruned = [Attempt("prune", "two-regions", after(now), succeeded=True)]
    assert due(*fulls, at=now + 60, attempts=pruned, policy=policy) == []
    assert due(*fulls, at=now, attempts=[Attempt("backup", "s2", None)], policy=policy) == []


attempts_of_any_kind = st.lists(
    st.builds(
        Attempt,
        verb=st.sampled_from(["backup", "prune", "drill"]),
        target=st.sampled_from([*DATABASES, "all"]),
        ended_at=st.none() | st.floats(0, 30 * DAY).map(after),
        succeeded=st.booleans(),
    ),
    max_size=6,
)
archives_of_any_kind = st.tuples(
    *(
        st.builds(archive, st.just(name), running=st.booleans(), gap=st.none() | st.just("hole"))
        for name in DATABASES
    )
)
backups_of_any_kind = st.lists(
    st.builds(
        backup,
        st.sampled_from(DATABASES),
        st.sampled_from(["full", "incremental"]),
        st.floats(0, 30 * DAY),
    ),
    max_size=8,
)


@given(backups_of_any_kind, archives_of_any_kind, st.floats(0, 40 * DAY), attempts_of_any_kind)
def test_never_two_at_once_for_one_database_and_only_gaps_beside_others(
    backups: list[Backup], archives: tuple[Archive, ...], now: float, attempts: list[Attempt]
) -> None:
    intents: list[Intent] = backups_due(POLICY, backups, archives, after(now), UP, attempts)
    running = [each for each in attempts if each.ended_at is None]
    by_name = {each.database: each for each in archives}
    assert len({intent.key for intent in intents}) == len(intents)
    for intent in intents:
        if intent.verb == "backup":
            assert by_name[intent.target].running
            assert not any(each.about(intent.target) for each in running)
    gaps = [i for i in intents if i.verb == "backup" and by_name[i.target].gap]
    if running or gaps:
        assert intents == gaps
    else:
        assert len(intents) <= 1


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.floats(1, 600)), min_size=1, max_size=40))
def test_every_database_has_a_backup_of_the_last_day_unless_they_fail(
    outcomes: list[tuple[bool, float]],
) -> None:
    """Ten days pass hour by hour; each backup takes its time and ends well or not."""
    attempts: list[Attempt] = []
    backups: list[Backup] = []
    archives = [archive(name) for name in DATABASES]
    failed, begun = 0.0, 0
    for now in range(0, int(10 * DAY), 3600):
        for intent in backups_due(POLICY, backups, archives, after(now), UP, attempts):
            if intent.verb == "prune":
                continue
            good, seconds = outcomes[begun % len(outcomes)]
            begun += 1
            attempts.insert(0, Attempt("backup", intent.target, after(now + seconds), good))
            if good:
                kind: BackupKind = "full" if intent.asked["kind"] == "full" else "incremental"
                backups.append(backup(intent.target, kind, now))
            else:
                failed += LONGEST_PAUSE_SECONDS + 3600
    if any(good for good, _ in outcomes):
        newest = {each.database: each.began_at for each in backups}
        slack = timedelta(seconds=DAY + 3 * 3600 + failed)
        assert all(at >= after(10 * DAY) - slack for at in newest.values())
    if all(good for good, _ in outcomes):
        counts = [sum(each.kind == "full" for each in backups if each.database == name)
                  for name in DATABASES]  # fmt: skip
        assert counts == [2, 2, 2]
