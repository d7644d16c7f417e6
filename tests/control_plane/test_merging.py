"""What comes back from a restored copy, and what stays as it is live."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from control_plane.merging import decide, merge, merged
from infra.repair import TABLES, Difference

LIVING = "status"


@st.composite
def differences(draw: st.DrawFn) -> Difference:
    """Two states of one row: any column may be another, or the row may be gone."""
    table = TABLES[draw(st.sampled_from(sorted(TABLES)))]
    columns = (*table.key, *(name for name in (*table.lasting, LIVING) if name not in table.key))
    then = {name: draw(st.integers(0, 2)) for name in columns}
    if draw(st.booleans()):
        return Difference(table.name, then, None)
    now = {
        name: value if name in table.key else draw(st.integers(0, 2))
        for name, value in then.items()
    }
    return Difference(table.name, then, now)


@given(differences())
def test_a_row_that_is_gone_comes_back_as_it_was(difference: Difference) -> None:
    if difference.now is None:
        change = decide(difference)
        assert change is not None
        assert (change.row, change.columns) == (difference.then, ())
        assert merged(difference) == difference.then


@given(differences())
def test_lasting_columns_come_back_and_all_others_stay_as_they_are_live(
    difference: Difference,
) -> None:
    if difference.now is None:
        return
    lasting = TABLES[difference.table].lasting
    found = merged(difference)
    for name, value in found.items():
        origin = difference.then if name in lasting else difference.now
        assert value == origin[name]


@given(differences())
def test_a_merged_row_has_nothing_left_to_merge(difference: Difference) -> None:
    after = Difference(difference.table, difference.then, merged(difference))
    assert decide(after) is None


@given(st.lists(differences(), max_size=8))
def test_every_difference_is_changed_or_kept_and_users_come_before_their_orders(
    found: list[Difference],
) -> None:
    result = merge(found)
    assert len(result.changes) == sum(decide(each) is not None for each in found)
    order = [list(TABLES).index(change.table) for change in result.changes]
    assert order == sorted(order)
    told = result.to_json()
    back = sum(told["insertedRows"].values()) + sum(told["restoredRows"].values())
    assert back == len(result.changes)


def test_a_bad_total_comes_back_while_a_later_cancellation_is_kept() -> None:
    then: dict[str, Any] = dict.fromkeys(("user_id", "id", *TABLES["orders"].lasting), 1)
    then["status"] = "confirmed"
    now = then | {"total_cents": 999, "status": "cancelled"}
    result = merge([Difference("orders", then, now)])
    assert [change.columns for change in result.changes] == [("total_cents",)]
    assert result.kept == 1
    assert merged(Difference("orders", then, now)) == then | {"status": "cancelled"}
    assert "999" not in str(result.to_json())
