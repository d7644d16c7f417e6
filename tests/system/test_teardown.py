"""The last thing that happens to a platform; named so that it is the last test, too."""

from __future__ import annotations

import pytest

from infra.local import leftovers
from tests.system.conftest import Operator

pytestmark = [pytest.mark.process, pytest.mark.alone]


def test_down_with_delete_leaves_no_process_and_no_file(operator: Operator) -> None:
    code, _, stderr = operator.run("down", "--delete-data", "--confirm", "two-regions")
    assert code == 0, stderr
    assert not operator.root.exists()
    assert leftovers.find(operator.root) == []
