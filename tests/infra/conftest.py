from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.infra import moving


@pytest.fixture(scope="module")
def run() -> Iterator[moving.Run]:
    """Two shards for all tests of a module; see `moving.pair`."""
    with moving.pair() as runner:
        yield runner
