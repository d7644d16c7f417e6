"""The bucket of backups on a real object store: verified both ways, quick to say it is away."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest

from infra.local.backups import store as backups
from infra.local.backups.seal import Damaged, Key
from infra.local.backups.store import Store, Vault
from runtime.errors import NotFound, Unavailable
from tests.runtime.seaweed import KEY, SECRET, Seaweed

pytestmark = pytest.mark.process

OURS = Key(bytes(32))


@pytest.fixture(scope="module")
def server() -> Iterator[Seaweed]:
    root = Path(tempfile.mkdtemp(prefix="regionctl-test-"))
    made = Seaweed(root / "o")
    made.start()
    yield made
    made.stop()
    shutil.rmtree(root, ignore_errors=True)


def at(server: Seaweed) -> Store:
    return Store("us-west-2", server.url, KEY, SECRET)


def test_a_bucket_that_is_not_there_is_empty_and_made_by_the_first_put(
    server: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first object of a bucket makes volumes, for which a busy machine needs seconds.
    monkeypatch.setattr(backups, "ANSWER_SECONDS", 60.0)

    async def check() -> None:
        store = at(server)
        assert await store.list("s1") == []
        assert await store.find("s1/a") is None
        stored = await store.put("s1/a", b"one")
        assert (stored.name, stored.size) == ("s1/a", 3)
        assert await store.get("s1/a") == b"one"
        await store.ensure()

    asyncio.run(check())


def test_objects_are_listed_below_a_folder_and_deleted_also_when_gone(server: Seaweed) -> None:
    async def check() -> None:
        store = at(server)
        for name in ("s2/b", "s2/a", "s20/c"):
            await store.put(name, name.encode())
        assert [each.name for each in await store.list("s2")] == ["s2/a", "s2/b"]
        assert {"s2", "s20"} <= set(await store.folders())
        await store.delete(["s2/a", "s2/never"])
        assert [each.name for each in await store.list("s2")] == ["s2/b"]
        with pytest.raises(NotFound):
            await store.get("s2/a")

    asyncio.run(check())


def test_a_large_object_comes_back_whole(server: Seaweed) -> None:
    async def check() -> None:
        body = os.urandom(9 << 20)
        store = at(server)
        await store.put("s1/large", body)
        assert await store.get("s1/large") == body

    asyncio.run(check())


def test_an_object_that_was_changed_in_the_store_is_not_given_out(server: Seaweed) -> None:
    async def check() -> None:
        store = at(server)
        await store.put("s1/x", b"good")
        await obstore.put_async(store._s3(), "s1/x", b"evil", use_multipart=False)
        with pytest.raises(Damaged) as caught:
            await store.get("s1/x")
        assert caught.value.extra["object"] == "s1/x"

    asyncio.run(check())


def test_another_object_under_the_name_of_the_listed_one_is_not_given_out(server: Seaweed) -> None:
    async def check() -> None:
        vault = Vault(at(server), OURS)
        listed = await vault.put("s1/listed", b"one")
        assert await vault.get("s1/listed", listed.sha256) == b"one"
        await vault.put("s1/listed", b"one")
        with pytest.raises(Damaged, match="s1/listed"):
            await vault.get("s1/listed", listed.sha256)

    asyncio.run(check())


def test_sealed_objects_that_changed_places_in_the_store_are_found(server: Seaweed) -> None:
    async def check() -> None:
        vault = Vault(at(server), OURS)
        await vault.put("s1/one", b"one")
        assert await vault.get("s1/one") == b"one"
        await vault.store.put("s1/two", await vault.store.get("s1/one"))
        with pytest.raises(Damaged):
            await vault.get("s1/two")

    asyncio.run(check())


def test_wrong_credentials_are_a_problem_that_quotes_none(server: Seaweed) -> None:
    async def check() -> None:
        store = Store("us-west-2", server.url, KEY, "another-secret")
        with pytest.raises(Unavailable) as caught:
            await store.put("s1/a", b"x")
        assert "another-secret" not in str(caught.value.document())

    asyncio.run(check())


def test_a_store_that_stalls_or_is_down_is_unavailable_within_seconds(server: Seaweed) -> None:
    assert server.process is not None

    async def check(limit: float) -> None:
        store = at(server)
        began = time.monotonic()
        calls = (store.put("s1/z", b"z"), store.list("s1"), store.get("s1/z"), store.ensure())
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(each, Unavailable) for each in answers), answers
        assert time.monotonic() - began < limit

    server.process.send_signal(signal.SIGSTOP)
    try:
        asyncio.run(check(12))
    finally:
        server.process.send_signal(signal.SIGCONT)
    server.stop()
    asyncio.run(check(6))
