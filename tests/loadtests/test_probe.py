"""The probe, its read-back and its plants, against a small real shop over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest

from control_plane import ledger as ledgers
from loadtests import journal

pytestmark = pytest.mark.process

PAGE = 5


class Shop(ThreadingHTTPServer):
    """Keeps the public contract, and breaks it where a test says so."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.orders: dict[str, dict[str, Any]] = {}
        self.by_key: dict[str, str] = {}
        self.users: dict[str, dict[str, Any]] = {}
        self.down = False
        self.answers_lost = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Shop
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlparse(self.path)
        kind, _, id = url.path.removeprefix("/api/v1/").partition("/")
        if kind == "products":
            self.answer(200, {"items": [{"sku": "tea"}, {"sku": "ink"}]})
        elif kind == "orders" and not id:
            user = parse_qs(url.query)["user_id"][0]
            mine = [o for o in self.server.orders.values() if o["user_id"] == user]
            start = int(parse_qs(url.query).get("cursor", ["0"])[0])
            following = str(start + PAGE) if len(mine) > start + PAGE else None
            self.answer(200, {"orders": mine[start : start + PAGE], "next": following})
        else:
            found = {"orders": self.server.orders, "users": self.server.users}[kind].get(id)
            self.answer(200, found) if found else self.answer(404, {"title": "Not found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["Idempotency-Key"]
        if self.server.down:
            self.answer(503, {"title": "Unavailable"})
            return
        with self.server.lock:
            replayed = key in self.server.by_key
            id = self.server.by_key.setdefault(key, str(1000 + len(self.server.by_key)))
            if self.path.endswith("users"):
                document = self.server.users.setdefault(id, {"id": id, **body})
            else:
                amount = f"{body['items'][0]['quantity'] * 2}.50"
                total = {"amount": amount, "currency": "USD"}
                fresh = {"id": id, "user_id": body["user_id"], "total": total}
                document = self.server.orders.setdefault(id, fresh)
            lose = self.server.answers_lost > 0 and not self.path.endswith("users")
            self.server.answers_lost -= lose
        if lose:
            self.answer(500, {"title": "Internal error"})
            return
        self.answer(200 if replayed else 201, document, replayed=replayed)

    def answer(self, status: int, document: Any, *, replayed: bool = False) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Regionctl-Shard", "s1")
        self.send_header("X-Regionctl-Epoch", "1")
        self.send_header("X-Regionctl-Region", "us-east-1")
        if replayed:
            self.send_header("Idempotent-Replay", "true")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def shop() -> Iterator[Shop]:
    with Shop() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"loadtests.{module}", *map(str, arguments)]


def probe(shop: Shop, folder: Path, *more: object) -> list[str]:
    files = ("--journal", folder / "journal.jsonl", "--stop", folder / "stop")
    return command("probe", "--url", shop.url, *files, "--users", 4, *more)


def ledger(folder: Path) -> ledgers.Ledger:
    return ledgers.parse((folder / "journal.jsonl").read_text().splitlines())


def read_back(shop: Shop, folder: Path, name: str = "journal.jsonl", *more: object) -> Any:
    out = folder / "readback.json"
    files = ("--journal", folder / name, "--out", out)
    subprocess.run(command("readback", "--url", shop.url, *files, *more), check=True, timeout=30)
    return json.loads(out.read_text())


def plant(folder: Path, kind: str, fault: float) -> ledgers.Ledger:
    files = ("--journal", folder / "journal.jsonl", "--out", folder / "planted.jsonl")
    subprocess.run(command("plant", kind, *files, "--fault", fault), check=True, timeout=30)
    return ledgers.parse((folder / "planted.jsonl").read_text().splitlines())


def until(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds; fails after ten seconds."""
    deadline = time.monotonic() + 10
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
    assert counts.failed == counts.unknown == 0
    lost = ledgers.loss(book, read_back(shop, tmp_path), began=book.end)
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
    loss = ledgers.loss(book, found, began=book.end)
    assert loss.value_cents == round(float(lost["total"]["amount"]) * 100)


def test_a_write_whose_answer_was_lost_is_unknown_and_later_found_present(
    shop: Shop, tmp_path: Path
) -> None:
    shop.answers_lost = 3
    subprocess.run(probe(shop, tmp_path, "--rate", 60, "--max-seconds", 1), check=True)
    assert ledgers.counts(ledger(tmp_path)).unknown == 3
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
    assert running.wait(timeout=15) == 0
    book = ledger(tmp_path)
    times = ledgers.rto(book, [], began=began, effective=began, hold_seconds=0.5)
    assert times["create-order"] is not None
    assert ledgers.counts(book).unknown >= 1


def test_a_second_probe_for_the_same_journal_does_not_start(shop: Shop, tmp_path: Path) -> None:
    asked = probe(shop, tmp_path, "--rate", 20, "--max-seconds", 0.3)
    assert subprocess.run(asked, check=False).returncode == 0
    before = (tmp_path / "journal.jsonl").read_bytes()
    assert subprocess.run(asked, check=False).returncode == 3
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_without_a_shop_the_probe_says_that_it_could_not_begin(tmp_path: Path) -> None:
    with Shop() as gone:
        asked = probe(gone, tmp_path)
    assert subprocess.run(asked, check=False).returncode == 1
    assert journal.read(tmp_path / "journal.jsonl")[-1]["planned"] == 0


def test_every_planted_failure_is_seen_by_the_meter(shop: Shop, tmp_path: Path) -> None:
    subprocess.run(probe(shop, tmp_path, "--rate", 60, "--max-seconds", 2), check=True)
    book = ledger(tmp_path)
    assert book.ready is not None
    fault = book.ready + 0.5
    stalled = ledgers.rto(plant(tmp_path, "stall", fault), [], began=fault, effective=fault)
    assert (stalled["create-order"] or 99) > 29
    (window,) = ledgers.two_writers(plant(tmp_path, "second-writer", fault))
    assert window.shard == "s1"
    assert ledgers.two_writers(book) == ()
    plant(tmp_path, "lost", fault)
    found = read_back(shop, tmp_path, "planted.jsonl", "--last", 10)
    assert len(found["missing"]) == 1
    assert found["acknowledged"] == 10
