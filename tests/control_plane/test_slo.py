"""Objectives: their file, the workbook's alerts, budgets that outlive the control plane."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane import slo
from control_plane.database import connect
from control_plane.levels import Tally
from control_plane.minutes import SECONDS, Minutes
from control_plane.sampler import Sampler
from control_plane.slo import Seen
from infra import slo_file
from infra.slo import (
    PERIOD_SECONDS,
    WORKBOOK,
    Slo,
    document,
    file,
    of_levels,
    possible,
    workbook,
)
from infra.topology import load
from infra.topology_policies import ServiceLevels
from infra.traffic import Traffic
from runtime.errors import Invalid
from tests.control_plane.platform import Platform
from tests.control_plane.served import TOKEN, serving, state_dir

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
DAY = timedelta(days=1)
SLOS = of_levels(ServiceLevels(), "shop")
AVAILABILITY, LATENCY, ERRORS = SLOS
TEXT = yaml.safe_dump(file("shop", SLOS), sort_keys=False, allow_unicode=True)
APART = yaml.safe_dump_all([document(each) for each in SLOS], sort_keys=False)
levels = st.builds(
    ServiceLevels,
    availability_percent=st.floats(1, 100).map(lambda each: round(each, 4)),
    p99_milliseconds=st.floats(1, 10_000).map(lambda each: round(each, 3)),
    error_rate_percent=st.floats(0.01, 100).map(lambda each: round(each, 4)),
)


@settings(max_examples=20)
@given(levels)
def test_what_is_made_of_service_levels_is_a_file_without_fault(given: ServiceLevels) -> None:
    made = of_levels(given, "shop")
    text = yaml.safe_dump(file("shop", made))
    for read, meant in zip(slo_file.parse(text, "slo.yaml"), made, strict=True):
        assert read.target == pytest.approx(meant.target, abs=1e-9)
        assert replace(read, target=meant.target, alerts=meant.alerts) == replace(
            meant, slice_target=read.slice_target
        )


def test_the_alerts_of_thirty_days_are_those_of_the_workbook() -> None:
    assert [
        (each.severity, round(each.factor, 9), each.long_seconds / 3600, each.short_seconds / 60)
        for each in workbook(0.999)
    ] == [
        ("page", 14.4, 1.0, 5.0),
        ("page", 6.0, 6.0, 30.0),
        ("ticket", 3.0, 24.0, 120.0),
        ("ticket", 1.0, 72.0, 360.0),
    ]


@given(st.floats(0.001, 0.99999), st.floats(7 * 86_400, PERIOD_SECONDS))
def test_an_alert_means_that_its_share_of_the_budget_is_gone_and_can_always_happen(
    target: float, window: float
) -> None:
    shares = {(severity, long): share for severity, share, long, _ in WORKBOOK}
    for alert in workbook(target, window):
        spent = alert.factor * alert.long_seconds / window
        assert spent == pytest.approx(shares[alert.severity, alert.long_seconds])
        assert alert.short_seconds * 12 == alert.long_seconds
        assert possible(alert.factor, target)


def test_a_file_of_several_documents_is_read_as_one_of_one() -> None:
    assert slo_file.parse(APART, "slo.yaml") == slo_file.parse(TEXT, "slo.yaml") == SLOS


def seen(whole: Tally, last: Tally, *, days: float = 30) -> Seen:
    lengths = slo.lengths(SLOS)
    return Seen(NOW - timedelta(days=days), NOW, whole, dict.fromkeys(lengths, last))


def tally(requests: int, bad: int) -> Tally:
    return Tally(requests, bad, requests, bad, requests, bad)


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.floats(0.01, 30))
def test_a_budget_is_spent_by_what_was_bad_in_the_part_of_the_period_that_was_watched(
    requests: int, bad: int, days: float
) -> None:
    bad = min(bad, requests)
    (found,) = slo.standings([ERRORS], seen(tally(requests, bad), Tally(), days=days))
    assert found.spent == pytest.approx(bad / requests / 0.01 * days / 30, abs=1e-6)
    assert (found.state == "spent") == (found.spent is not None and found.spent >= 1)
    more, *_ = slo.standings([ERRORS], seen(tally(requests + 1, bad + 1), Tally(), days=days))
    assert more.spent is not None
    assert more.spent >= (found.spent or 0) - 1e-9


@pytest.mark.parametrize(
    ("burn", "state"), [(0.5, "ok"), (1.2, "ticket"), (5.9, "ticket"), (6.1, "page"), (20, "page")]
)
def test_the_state_is_that_of_the_worst_alert_whose_windows_both_burn(
    burn: float, state: str
) -> None:
    bad = round(burn * 0.01 * 100_000)
    (found,) = slo.standings([ERRORS], seen(tally(10**9, 0), tally(100_000, bad)))
    assert found.state == state


def test_an_alert_is_over_when_its_short_window_is_calm() -> None:
    windows = dict.fromkeys(slo.lengths(SLOS), tally(1000, 1000))
    calm = {each: tally(1000, 0) if each <= 1800 else it for each, it in windows.items()}
    for tallies, state in ((windows, "page"), (calm, "ticket")):
        (found,) = slo.standings([ERRORS], Seen(NOW - 30 * DAY, NOW, tally(10**9, 0), tallies))
        assert found.state == state


def test_a_budget_lasts_as_long_as_it_would_at_the_burn_of_the_last_hour() -> None:
    half = seen(tally(1000, 5), tally(1000, 20))
    (found,) = slo.standings([ERRORS], half)
    assert found.burn == pytest.approx(2)
    assert found.lasts_seconds == pytest.approx(PERIOD_SECONDS / 2 / 2)
    (calm,) = slo.standings([ERRORS], seen(tally(1000, 5), tally(1000, 0)))
    assert (calm.burn, calm.lasts_seconds) == (0, None)


def test_without_requests_nothing_is_known_and_nothing_missed() -> None:
    told = slo.document("shop", slo.standings(SLOS, seen(Tally(), Tally())), seen(Tally(), Tally()))
    assert (told["state"], told["met"]) == ("unknown", True)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("targetPercent: 99.99", "targetPercent: 100.0", "less"),
        ("targetPercent: 99.99", "targetPercent: 99.99\n      target: 0.9", "either target or"),
        ("budgetingMethod: Timeslices", "budgetingMethod: Occurrences", "timeSliceTarget"),
        ("displayName: availability", "displayname: availability", "did you mean displayName"),
        ("      op: lte\n", "", "op and value"),
        ("duration: 30d", "duration: 30 days", "a time such as"),
        ("duration: 30d", "duration: 31d", "longer than 30 days"),
        ("name: latency", "name: errors", "two SLOs are called errors"),
        ("factor: 14.4", "factor: 20000", "not even a total outage"),
        ("short: 5m", "short: 2h", "short window"),
        ("metric: requests", "metric: visitors", "must be"),
        ("kind: SLO\n", "kind: Service\n", "must be"),
        ("apiVersion", "  apiVersion", "not YAML"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_its_place(old: str, new: str, told: str) -> None:
    assert old in TEXT
    with pytest.raises(Invalid) as caught:
        slo_file.parse(TEXT.replace(old, new, 1), "slo.yaml")
    assert "slo.yaml" in caught.value.detail
    assert told in caught.value.detail


@pytest.mark.parametrize("text", ["", "---\n", "a: 1", "[]", "7"])
def test_a_file_without_an_objective_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        slo_file.parse(text, "slo.yaml")


async def test_minutes_outlive_the_control_plane_and_are_forgotten_after_a_period(
    tmp_path: Path,
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'control.db'}"
    number = int(NOW.timestamp()) // SECONDS
    for added in (tally(10, 1), tally(5, 2)):  # two control planes within one minute
        database = connect(url, durable=False)
        await database.prepare()
        minutes = Minutes(database)
        await minutes.keep(number, added)
        await database.close()
    database = connect(url, durable=False)
    minutes = Minutes(database)
    await minutes.keep(number - 90, tally(100, 0))
    await minutes.keep(number - 120, Tally())
    first, whole = await minutes.period(NOW)
    assert (first, whole) == (NOW - timedelta(minutes=90), tally(115, 3))
    windows = await minutes.windows(NOW, [300.0, 7200.0])
    assert windows == {300.0: tally(15, 3), 7200.0: tally(115, 3)}
    later = number + PERIOD_SECONDS // SECONDS - 1
    await minutes.keep(int(later), tally(1, 0))
    _, whole = await minutes.period(NOW + 30 * DAY)
    assert whole.requests == 16
    await database.close()


async def test_the_sampler_keeps_each_minute_and_begins_where_another_one_ended() -> None:
    async with Platform.open() as platform:
        await platform.run("provision")

        async def looks(sampler: Sampler, times: int, *, failed: bool) -> None:
            for _ in range(times):
                for _ in range(10):
                    door = platform.provider.counted["edge"]
                    platform.provider.counted["edge"] = door.with_request(5.0, failed=failed)
                platform.clock.advance(5.0)
                await sampler.look()

        first = Sampler(platform.provider, platform.clock, Minutes(platform.store.database))
        platform.provider.counted["edge"] = Traffic()
        await first.look()
        await looks(first, 30, failed=True)
        kept = first.history.kept.requests
        assert 200 <= kept < 300
        second = Sampler(platform.provider, platform.clock, Minutes(platform.store.database))
        await second.look()
        await looks(second, 12, failed=False)
        found = await second.seen(slo.lengths(SLOS))
        assert found.whole.requests == kept + 120
        assert found.whole.errors == kept
        assert found.windows[3600.0] == found.whole
        assert second.measured.levels[2].since == first.history.since


async def test_the_api_says_how_objectives_stand(tmp_path: Path) -> None:
    async with serving(state_dir(tmp_path)) as (address, plane):
        headers = {"Authorization": f"Bearer {TOKEN}"}
        number = int(plane.clock.now().timestamp()) // SECONDS
        await plane.sampler.minutes.keep(number - 2, replace(tally(1000, 500), bad_slices=0))
        async with httpx.AsyncClient(base_url=address, headers=headers) as client:
            found = (await client.get("/v1/slo")).json()
            written = (await client.get("/v1/slo/file")).json()
        states = {each["name"]: each["state"] for each in found["items"]}
        assert states == {"availability": "ok", "latency": "page", "errors": "page"}
        assert (found["state"], found["met"]) == ("page", False)
        assert [each["metadata"]["name"] for each in written["items"]] == list(states)


def test_the_objectives_of_a_topology_are_its_service_levels() -> None:
    made: dict[str, Slo] = {
        each.name: each for each in of_levels(load("two-regions").service_levels, "shop")
    }
    assert made["availability"].target == pytest.approx(0.9999)
    assert made["latency"].milliseconds == 100
    assert made["errors"].target == pytest.approx(0.99)
