"""The probe, its read-back and its plants, against a small real shop over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from control_plane import ledger as ledgers
from control_plane.writers import two_writers
from loadtests import journal, readback
from loadtests import probe as program
from tests.loadtests.shop import SECRET, Shop, open_shop

pytestmark = pytest.mark.process


@pytest.fixture
def shop() -> Iterator[Shop]:
    with open_shop() as server:
        yield server


def command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"loadtests.{module}", *map(str, arguments)]


def probe(shop: Shop, folder: Path, *more: object) -> list[str]:
    files = ("--journal", folder / "journal.jsonl", "--stop", folder / "stop")
    files += ("--client", shop.client_file(folder))
    return command("probe", "--url", shop.url, *files, "--users", 4, *more)


def ledger(folder: Path) -> ledgers.Ledger:
    return ledgers.parse((folder / "journal.jsonl").read_text().splitlines())


def read_back(shop: Shop, folder: Path, name: str = "journal.jsonl", *more: object) -> Any:
    out = folder / "readback.json"
    files = ("--journal", folder / name, "--out", out, "--client", shop.client_file(folder))
    subprocess.run(command("readback", "--url", shop.url, *files, *more), check=True, timeout=60)
    return json.loads(out.read_text())


def plant(folder: Path, kind: str, fault: float) -> ledgers.Ledger:
    files = ("--journal", folder / "journal.jsonl", "--out", folder / "planted.jsonl")
    subprocess.run(command("plant", kind, *files, "--fault", fault), check=True, timeout=60)
    return ledgers.parse((folder / "planted.jsonl").read_text().splitlines())


def until(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds; fails after forty seconds."""
    deadline = time.monotonic() + 40
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        tick.wait(0.05)


def wait_for(folder: Path, line: str, **fields: Any) -> None:
    """Returns when the journal has such a line."""
    path = folder / "journal.jsonl"
    wanted = {"line": line, **fields}.items()
    until(lambda: path.exists() and any(wanted <= d.items() for d in simple(journal.read(path))))


def simple(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in d.items() if key != "body"} for d in lines]


def test_arrivals_keep_their_planned_pace_and_every_write_is_found_again(
    shop: Shop, tmp_path: Path
) -> None:
    subprocess.run(probe(shop, tmp_path, "--rate", 60, "--max-seconds", 1.5), check=True)
    book = ledger(tmp_path)
    assert book.planned is not None
    assert 50 <= book.planned <= 140
    assert book.offered() >= 0.9
    counts = ledgers.counts(book)
    assert counts.writes.acknowledged == counts.writes.attempted
    assert counts.reads.acknowledged == counts.reads.attempted
    lost = ledgers.loss(book, read_back(shop, tmp_path), until=book.end)
    assert (lost.count, lost.wrong, lost.duplicated) == (0, 0, 0)


def test_a_lost_a_changed_and_a_doubled_order_are_each_found(shop: Shop, tmp_path: Path) -> None:
    subprocess.run(probe(shop, tmp_path, "--rate", 60, "--max-seconds", 1), check=True)
    first, second, third = list(shop.orders)[:3]
    lost = shop.orders.pop(first)
    shop.orders[second]["total"] = {"amount": "0.01", "currency": "USD"}
    shop.orders["999"] = {**shop.orders[third], "id": "999"}
    found = read_back(shop, tmp_path)
    assert found["missing"] == [first]
    assert [wrong["id"] for wrong in found["wrong"]] == [second]
    assert found["duplicates"] == [{"user": shop.orders[third]["user_id"], "orders": ["999"]}]
    book = ledger(tmp_path)
    loss = ledgers.loss(book, found, until=book.end)
    assert loss.value_cents == round(float(lost["total"]["amount"]) * 100)


def test_a_write_whose_answer_was_lost_is_unknown_and_later_found_present(
    shop: Shop, tmp_path: Path
) -> None:
    shop.answers_lost = 3
    subprocess.run(probe(shop, tmp_path, "--rate", 60, "--max-seconds", 1), check=True)
    assert ledgers.counts(ledger(tmp_path)).writes.unknown == 3
    found = read_back(shop, tmp_path)
    assert (found["unknown_present"], found["unknown_absent"]) == (3, 0)
    assert found["missing"] == found["duplicates"] == []


def test_the_probe_outlives_an_outage_and_ends_by_its_stop_file(shop: Shop, tmp_path: Path) -> None:
    running = subprocess.Popen(probe(shop, tmp_path, "--rate", 60, "--max-seconds", 30))

    wait_for(tmp_path, "ready")
    began = time.monotonic()
    shop.down = True
    wait_for(tmp_path, "outcome", status=503)
    shop.down = False
    back = time.monotonic()
    until(lambda: ledger(tmp_path).end > back + 1.0)
    (tmp_path / "stop").touch()
    assert running.wait(timeout=40) == 0
    book = ledger(tmp_path)
    times = ledgers.rto(book, [], began=began, effective=began, hold_seconds=0.5)
    assert times["create-order"] is not None
    assert ledgers.counts(book).writes.unknown >= 1


def test_a_second_probe_for_the_same_journal_does_not_start(shop: Shop, tmp_path: Path) -> None:
    asked = probe(shop, tmp_path, "--rate", 20, "--max-seconds", 0.3)
    assert subprocess.run(asked, check=False).returncode == 0
    before = (tmp_path / "journal.jsonl").read_bytes()
    assert subprocess.run(asked, check=False).returncode == 3
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_without_a_shop_the_probe_says_that_it_could_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "TOKEN_SECONDS", 0.5)
    with Shop() as gone:
        asked = probe(gone, tmp_path)
    assert program.main(asked[len(command("probe")) :]) == 1
    assert journal.read(tmp_path / "journal.jsonl")[-1]["planned"] == 0


def test_every_planted_failure_is_seen_by_the_meter(shop: Shop, tmp_path: Path) -> None:
    subprocess.run(probe(shop, tmp_path, "--rate", 60, "--max-seconds", 2), check=True)
    book = ledger(tmp_path)
    assert book.ready is not None
    fault = book.ready + 0.5
    stalled = ledgers.rto(plant(tmp_path, "stall", fault), [], began=fault, effective=fault)
    assert (stalled["create-order"] or 99) > 29
    (window,) = two_writers(plant(tmp_path, "second-writer", fault))
    assert window.shard.startswith("slot ")
    assert two_writers(book) == ()
    plant(tmp_path, "lost", fault)
    found = read_back(shop, tmp_path, "planted.jsonl", "--last", 10)
    assert len(found["missing"]) == 1
    assert found["acknowledged"] == 10


def test_a_journal_never_stands_without_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with pytest.raises(TypeError):
        journal.Journal(path, run=b"what cannot be written")
    assert list(tmp_path.iterdir()) == []
    journal.Journal(path, run="one").close()
    with pytest.raises(FileExistsError):
        journal.Journal(path, run="two")
    assert list(tmp_path.iterdir()) == [path]
    assert journal.read(path) == [{"line": "start", "run": "one"}]


def test_no_secret_and_no_password_is_in_the_journal(shop: Shop, tmp_path: Path) -> None:
    subprocess.run(probe(shop, tmp_path, "--rate", 40, "--max-seconds", 0.5), check=True)
    written = (tmp_path / "journal.jsonl").read_text()
    passwords = {user["password"] for user in shop.users.values()}
    assert len(passwords) == 1
    assert not [each for each in (SECRET, *passwords, *shop.tokens) if each in written]


def test_an_unknown_registration_is_repeated_with_its_password(shop: Shop, tmp_path: Path) -> None:
    subprocess.run(probe(shop, tmp_path, "--rate", 40, "--max-seconds", 0.5), check=True)
    path = tmp_path / "journal.jsonl"
    lines = journal.read(path)
    known = next(line for line in lines if line["line"] == "outcome" and line.get("user_id"))
    known.update(outcome="unknown", user_id=None)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    shop.passwords.clear()
    assert read_back(shop, tmp_path)["unknown_present"] == 1
    assert shop.passwords == {user["password"] for user in shop.users.values()}


def test_the_token_is_renewed_beside_the_orders_and_outlives_an_outage_of_its_server(
    shop: Shop, tmp_path: Path
) -> None:
    shop.token_seconds = 0.1
    running = subprocess.Popen(probe(shop, tmp_path, "--rate", 20, "--max-seconds", 60))
    until(lambda: len(shop.tokens) >= 1)
    shop.tokens_down = True
    wait_for(tmp_path, "outcome", outcome="ok", replayed=False)
    shop.tokens_down = False
    until(lambda: len(shop.tokens) >= 2)
    (tmp_path / "stop").touch()
    assert running.wait(timeout=40) == 0
    assert ledgers.counts(ledger(tmp_path)).writes.failed == 0


def test_a_client_that_is_refused_does_not_begin(shop: Shop, tmp_path: Path) -> None:
    asked = probe(shop, tmp_path)
    (tmp_path / "probe.json").write_text('{"client_id": "probe", "client_secret": "guess"}')
    assert subprocess.run(asked, check=False).returncode == 1
    end = journal.read(tmp_path / "journal.jsonl")[-1]
    assert (end["planned"], "got no token" in end["reason"]) == (0, True)


def test_a_client_file_that_others_can_read_is_not_used(shop: Shop, tmp_path: Path) -> None:
    asked = probe(shop, tmp_path)
    (tmp_path / "probe.json").chmod(0o644)
    assert subprocess.run(asked, check=False).returncode == 1
    assert "0600" in journal.read(tmp_path / "journal.jsonl")[-1]["reason"]


@pytest.mark.parametrize(
    ("order", "found"),
    [
        (("placed", "pending", "pending", None), False),
        (("placed", "reserved", "captured", None), True),
        (("confirmed", "reserved", "captured", None), False),
        (("confirmed", "reserved", "pending", None), True),
        (("cancelled", "refused", "pending", "out-of-stock"), False),
        (("cancelled", "pending", "pending", None), True),
        (("lost", "pending", "pending", None), True),
    ],
)
def test_a_state_that_no_order_can_be_in_is_told_apart(
    order: tuple[str | None, ...], found: bool
) -> None:
    document = dict(zip(("status", "stock", "payment", "reason"), order, strict=True))
    assert readback.impossible(document) is found
