"""How files lie in pieces, and what pg_waldump says of a segment."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local.backups import pieces, wal
from infra.local.backups.chain import Extent
from infra.local.backups.pieces import PIECE_BYTES, Part
from infra.local.backups.seal import Damaged
from runtime.errors import OperationFailed

SEGMENT = (1, 3)


def blocks(data: bytes, size: int) -> Iterator[memoryview]:
    view = memoryview(data)
    return (view[at : at + size] for at in range(0, len(data), size))


def test_a_folder_comes_back_from_its_pieces_as_it_was(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for name, data in {
        "base/1/1": b"a" * 9000,
        "backup_manifest": b"{}",
        "pg_wal/none": b"",
    }.items():
        (old / name).parent.mkdir(parents=True, exist_ok=True)
        (old / name).write_bytes(data)
    (old / "empty").mkdir()
    plan = pieces.plan(old)
    assert [part.path for part in plan.pieces[0]] == ["backup_manifest"]
    assert plan.size == 9002
    for name in plan.folders:
        (new / name).mkdir(parents=True)
    for piece in plan.pieces:
        data = pieces.read(old, piece)
        parts = pieces.parts_of("piece", pieces.to_json(piece, 1, ""))
        assert pieces.write(new, "piece", parts, blocks(data, 4000), None) == len(data)
    assert {p.relative_to(new): p.read_bytes() for p in new.rglob("*") if p.is_file()} == {
        p.relative_to(old): p.read_bytes() for p in old.rglob("*") if p.is_file()
    }
    assert (new / "empty").is_dir()


@given(st.lists(st.integers(0, 3 * PIECE_BYTES), max_size=20))
def test_every_byte_of_every_file_is_in_one_piece_and_no_piece_is_too_large(
    sizes: list[int],
) -> None:
    dealt = pieces.deal([(str(number), size) for number, size in enumerate(sizes)])
    assert all(sum(part.size for part in piece) <= PIECE_BYTES for piece in dealt)
    found: dict[str, int] = {}
    for part in (part for piece in dealt for part in piece):
        assert part.offset == found.get(part.path, 0)
        found[part.path] = part.offset + part.size
    assert found == {str(number): size for number, size in enumerate(sizes)}


@pytest.mark.parametrize("data", [b"", b"ab", b"abcdef", b"abcdefg"])
def test_a_piece_that_is_not_the_listed_one_is_damaged(data: bytes, tmp_path: Path) -> None:
    piece = (Part("a", 0, 3), Part("b", 0, 2))
    with pytest.raises(Damaged):
        pieces.check("s1/x/piece-00001", pieces.to_json(piece, 1, ""), data)
    with pytest.raises(Damaged, match="s1/x/piece-00001"):
        pieces.write(tmp_path, "s1/x/piece-00001", piece, blocks(data, 2), None)


@pytest.mark.parametrize("path", ["../a", "/a", "b/../../a"])
def test_no_piece_is_written_outside_of_its_folder(path: str) -> None:
    with pytest.raises(Damaged, match="outside"):
        pieces.parts_of("piece", pieces.to_json((Part(path, 0, 3),), 1, ""))


RECORDS = b"""\
rmgr: Heap        len (rec/tot): 54/ 54, tx: 739, lsn: 0/03000028, prev 0/02FFFF90, desc: INSERT
rmgr: Transaction len (rec/tot): 34/ 34, tx: 739, lsn: 0/03000060, prev 0/03000028, desc: \
COMMIT 2026-11-23 04:18:12.500000 UTC
rmgr: Transaction len (rec/tot): 90/ 90, tx: 740, lsn: 0/03000088, prev 0/03000060, desc: \
COMMIT 2026-11-23 04:18:13.250000 UTC; inval msgs: catcache 80
rmgr: Standby     len (rec/tot): 50/ 50, tx: 0, lsn: 0/030000E8, prev 0/03000088, desc: RUNNING
"""
NEWEST = datetime(2026, 11, 23, 4, 18, 13, 250000, tzinfo=UTC)


def test_the_end_of_wal_and_its_newest_commit_are_read_from_what_pg_waldump_says() -> None:
    said = (
        b"pg_waldump: error: error in WAL record at 0/30000E8: invalid record length at "
        b"0/3000120: expected at least 24, got 0\n"
    )
    assert wal.parse(RECORDS, said, SEGMENT) == Extent(0x30000E8, 0x3000120, NEWEST)
    assert wal.parse(RECORDS, b"", SEGMENT) == Extent(0x30000E8, 0x4000000, NEWEST)
    with pytest.raises(OperationFailed, match="000000010000000000000003"):
        wal.parse(b"", b"pg_waldump: error: could not find a valid record", SEGMENT)
