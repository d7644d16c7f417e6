"""The emulators and the clients of them serve for a whole session; names keep tests apart."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from infra.aws import plan as plans
from infra.aws.clients import Cloud
from infra.aws.site import Site
from tests.infra.aws import emulators
from tests.infra.aws.surveyed import survey

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Its clients are made once: each takes longer than all that a test asks of it."""
    with emulators.keys(), emulators.running(tmp_path_factory.mktemp("aws")) as made:
        yield Cloud(made.endpoints(), pause=emulators.PAUSE)


@pytest.fixture(scope="session")
def _asked() -> Iterator[list[str]]:
    """Every operation that was asked of AWS, and answered, as "service.operation"."""
    asked: list[str] = []

    def noting(real: Any) -> Any:
        def note(self: Cloud, service: str, region: str, operation: str, *rest: Any) -> Any:
            answer = real(self, service, region, operation, *rest)
            asked.append(f"{service}.{operation}")
            return answer

        return note

    with pytest.MonkeyPatch.context() as patch:
        for name in ("_call", "_pages"):
            patch.setattr(Cloud, name, noting(getattr(Cloud, name)))
        yield asked


@pytest.fixture(autouse=True)
def _shown(request: pytest.FixtureRequest, _asked: list[str]) -> Iterator[None]:
    """A test that says that it shows an operation has asked for it, and got an answer."""
    before = len(_asked)
    yield
    marked = [name for mark in request.node.iter_markers("shows") for name in mark.args]
    assert set(marked) <= set(_asked[before:])


@pytest.fixture
def shard(cloud: Cloud) -> Site:
    """A platform of its own that has the database s1, and nothing else yet."""
    made = emulators.site(cloud, f"t{next(_numbers)}")
    emulators.make_database(made, "s1")
    return made


@pytest.fixture(scope="module")
def site(cloud: Cloud) -> Site:
    """A whole platform for the tests of a module: each leaves it as it found it."""
    made = emulators.site(cloud, f"m{next(_numbers)}")
    emulators.build(made)
    return made


@pytest.fixture(scope="session")
def plan_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The recorded plan of aws-two-regions, as it is written."""
    return plans.text(survey(tmp_path_factory)["plan"])


@pytest.fixture
def plan(plan_text: str) -> plans.JSON:
    """The same as a document of the test's own, which it may spoil."""
    document: plans.JSON = json.loads(plan_text)
    return document
