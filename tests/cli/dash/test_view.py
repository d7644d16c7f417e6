from __future__ import annotations

import pytest

from cli.dash import details, infrastructure, intents, sheets, view
from cli.dash.filters import Filter
from cli.dash.view import Contact
from tests.control_plane import overviews

LIVE = Contact(age=0.4)


@pytest.mark.parametrize(
    ("document", "contact", "said"),
    [
        (overviews.healthy(), LIVE, "● ALL HEALTHY"),
        (overviews.degraded(), LIVE, "▲ DEGRADED"),
        (overviews.down(), LIVE, "✖ DOWN"),
        (overviews.drill_running(), LIVE, "◆ DRILL"),
        (overviews.failover_in_progress(), LIVE, "⇄ FAILOVER"),
        (overviews.failover_in_progress(), Contact(age=11.0), "? STALE"),
        (overviews.healthy(), Contact(age=1.0, lost=0.5), "? STALE"),
        (None, Contact(), "? STALE"),
    ],
)
def test_the_headline_says_the_worst_that_is_known(
    document: dict[str, object] | None, contact: Contact, said: str
) -> None:
    assert view.headline(document, contact).text == said


def test_every_state_has_a_glyph_a_word_and_a_tone() -> None:
    cells = [view.state(word) for word in view.KEYS_OF_STATE]
    assert len({cell.text.split()[0] for cell in cells if cell.tone in ("ok", "warn", "bad")}) >= 4
    assert all(len(cell.text.split()) == 2 and cell.tone for cell in cells)
    assert view.state("odd").text == "? odd"


@pytest.mark.parametrize("width", [80, 100, 120, 160, 200])
def test_the_top_bar_fits_and_never_loses_state_and_freshness(width: int) -> None:
    text = view.top_bar(overviews.healthy(), LIVE, "x", width, "READ-ONLY PAUSED").text
    assert len(text) <= width
    assert "● ALL HEALTHY" in text
    assert "live 0.4s ago" in text
    assert "READ-ONLY" in text


def test_a_failover_and_the_drill_around_it_are_both_pinned() -> None:
    lines = [cell.text for cell in view.banners(overviews.failover_in_progress(), LIVE)]
    assert lines[0].startswith("⇄ FAILOVER s1  op-15  step 4/9 promote  00:01  by sentinel")
    assert lines[1].startswith("◆ DRILL region-failure  op-14  step 5/7")


def test_a_sparkline_begins_at_zero_and_keeps_its_gaps() -> None:
    assert view.sparkline([0.0, 5.0, None, 10.0], 6) == "  ▁▅ █"
    assert view.sparkline([3.0] * 9, 4) == "████"
    assert view.sparkline([], 3) == "   "
    assert view.sparkline([0.0, 0.0], 2) == "▁▁"


def test_a_meter_shows_eighths() -> None:
    assert view.meter(0.5, 4) == "██░░"
    assert view.meter(0.53, 4) == "██▏░"
    assert view.meter(1.7, 2) == "██"
    assert view.meter(None, 3) == "···"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0s"), (0.4, "0.4s"), (12.9, "12s"), (90, "1m"), (7300, "2h"), (200_000, "2d")],
)
def test_ages_are_short(seconds: float, text: str) -> None:
    assert view.ago(seconds) == text


def test_plain_text_says_what_is_wrong_and_what_to_type() -> None:
    lines = [cell.text for cell in view.plain(overviews.degraded(), LIVE)]
    assert lines[0].startswith("two-regions: ▲ DEGRADED; live 0.4s ago")
    assert any(line.startswith("  why: latency.p99: 910 ms") for line in lines)
    assert "  try: regionctl logs s2.us-east-1b -n 50" in lines


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(
    "make",
    [
        overviews.healthy,
        overviews.degraded,
        overviews.down,
        overviews.drill_running,
        overviews.failover_in_progress,
        overviews.reshard_in_progress,
        overviews.empty,
    ],
)
def test_every_state_can_be_drawn_and_fits_its_width(make: object, width: int) -> None:
    document = make()  # type: ignore[operator]
    made = [
        sheets.regions(document, width),
        sheets.databases(document, width),
        sheets.operations(document, width),
        sheets.objectives(document),
    ]
    for sheet in made:
        assert all(len(row.cells) == len(sheet.columns) for row in sheet.rows)
    for sheet in made[:2]:
        needed = [
            max([len(name.removeprefix(">")), *(len(row.cells[n].text) for row in sheet.rows)])
            for n, name in enumerate(sheet.columns)
        ]
        assert sum(needed) + 2 * len(needed) <= width - 2
    assert view.plain(document, LIVE)
    assert details.moves(document["moves"], 6)


def test_the_steps_around_the_one_in_flight_are_shown() -> None:
    steps = [
        {"name": f"step-{n}", "args": {}, "state": "succeeded" if n < 20 else "pending"}
        for n in range(40)
    ]
    steps[20]["state"] = "running"
    operation = {"id": "op-1", "kind": "reshard", "target": "slots", "state": "running"}
    lines = [cell.text for cell in details.steps({**operation, "steps": steps}, 8)]
    assert len(lines) == 8
    assert any(line.startswith("▶  21 step-20") for line in lines)


def test_a_drill_that_was_carried_out_says_what_it_proved() -> None:
    step = {"name": "write-report", "args": {}, "state": "succeeded", "result": {"verdict": "void"}}
    operation = {
        "id": "op-3",
        "kind": "drill",
        "target": "x",
        "state": "succeeded",
        "steps": [step],
    }
    lines = [cell.text for cell in details.steps(operation, 9)]
    assert any(line.startswith("verdict: ▲ void") for line in lines)


def test_a_line_without_a_time_stays_with_the_one_before_it() -> None:
    logs = {
        "a": ["2026-01-01 10:00:02.000 UTC [1] x LOG: one", "\tDETAIL: of one"],
        "b": ['{"at":"2026-01-01T10:00:03.500Z","level":"info","message":"two"}', "{broken"],
        "c": ["2026-01-01T10:00:01Z three"],
    }
    found = [(entry.source, entry.text.strip()) for entry in details.merge(logs)]
    assert found == [
        ("c", "three"),
        ("a", "[1] x LOG: one"),
        ("a", "DETAIL: of one"),
        ("b", "info two"),
        ("b", "{broken"),
    ]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ["us-east-1", "us-west-2"]),
        ("EAST", ["us-east-1"]),
        ("!east", ["us-west-2"]),
        ("!", ["us-east-1", "us-west-2"]),
        ("-f ut2", ["us-west-2"]),
        ("(", []),
        ("-\\d$", ["us-east-1", "us-west-2"]),
    ],
)
def test_filters(text: str, kept: list[str]) -> None:
    assert [line for line in ("us-east-1", "us-west-2") if Filter(text).keeps(line)] == kept


def test_the_equivalent_command_is_complete() -> None:
    intent = intents.failover("s1")
    assert intent.equivalent("it's gone", accept_loss=True) == (
        """regionctl failover run s1 --accept-data-loss --reason 'it'"'"'s gone' --confirm s1"""
    )
    assert intents.switchover("us-west-2", region=True).equivalent() == (
        "regionctl switchover run --to us-west-2"
    )


def test_what_may_be_lost_is_said_in_words() -> None:
    assert intents.loss({"lossSeconds": 0.0}).text == "loss: none"
    assert intents.loss({"lossSeconds": None}).tone == "bad"
    assert intents.loss({"lossSeconds": 0.5}).text == "loss: up to 0.50 s of the newest writes"


def test_a_drill_in_progress_blocks_another_but_never_a_failover() -> None:
    document = overviews.drill_running()
    assert "op-14" in intents.blocked("drill", document, LIVE)
    assert intents.blocked("failover", document, LIVE) == ""
    assert intents.blocked("abort", document, LIVE) == ""
    assert intents.blocked("abort", overviews.healthy(), LIVE) == "No operation is running."
    assert "does not answer" in intents.blocked("failover", document, Contact(age=60))


@pytest.mark.parametrize(
    ("provider", "said"),
    [
        ("local", "cost none here; on AWS: regionctl infra cost"),
        ("aws", "planned cost: regionctl infra cost --topology two-regions"),
    ],
)
def test_screen_7_says_where_costs_are_found(provider: str, said: str) -> None:
    document = {**overviews.healthy(), "provider": provider}
    lines = [cell.text for cell in infrastructure.facts(document)]
    assert lines[1].endswith(said)
    assert all(len(line) <= 98 for line in lines)
    assert "COST" not in " ".join(sheets.regions(document, 200).columns)
