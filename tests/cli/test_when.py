from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cli.when import moment_of, seconds_of
from runtime.errors import Invalid

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("90m", 5400), ("12h", 43200), ("30d", 2592000)]
)
def test_a_length_of_time_is_a_number_with_its_unit(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2h", datetime(2026, 1, 31, 10, tzinfo=UTC)),
        ("999999d", datetime.min.replace(tzinfo=UTC)),
        ("2026-01-30", datetime(2026, 1, 30, tzinfo=UTC)),
        ("2026-01-30T04:15:00Z", datetime(2026, 1, 30, 4, 15, tzinfo=UTC)),
        ("2026-01-30T04:15:00+02:00", datetime(2026, 1, 30, 2, 15, tzinfo=UTC)),
    ],
)
def test_a_moment_is_so_long_ago_or_a_time(text: str, moment: datetime) -> None:
    assert moment_of(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "5", "h", "1.5h", "-5m", "yesterday", "2026-13-01"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        moment_of(text, NOW)
