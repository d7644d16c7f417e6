"""What one server's files say, without a server."""

from __future__ import annotations

import pytest

from infra.local.postgres import ControlData, final_position
from runtime.errors import OperationFailed


def test_a_clean_stop_ends_behind_its_shutdown_checkpoint() -> None:
    assert final_position("s1.a", ControlData(True, 1, 100), standby=False) == 101


def test_where_a_killed_primary_ended_is_not_guessed_from_its_last_checkpoint() -> None:
    with pytest.raises(OperationFailed, match="not stopped cleanly"):
        final_position("s1.a", ControlData(False, 1, 100), standby=False)


def test_a_stopped_standby_is_asked_for_no_clean_end() -> None:
    assert final_position("s1.b", ControlData(False, 1, 100), standby=True) == 101
