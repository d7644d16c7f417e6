"""Sealed objects: what is changed, cut, moved or renamed is found."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local.backups.seal import BLOCK, TAG, Damaged, Key, blocks, seal, unseal
from runtime.errors import Invalid, OperationFailed, Refused

KEY = Key(bytes(range(32)))
CHUNK = 64
HEADER = 33
DATA = os.urandom(500)


def chunked(data: bytes, name: str = "s1/a") -> bytes:
    """Sealed in small chunks, so that a test has many of them."""
    return seal(KEY, name, data, chunk=CHUNK)


@given(st.binary(max_size=2000))
def test_what_is_sealed_comes_back(data: bytes) -> None:
    assert unseal(KEY, "s1/a", chunked(data)) == data


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 1])
def test_what_is_sealed_comes_back_in_blocks(size: int) -> None:
    data = os.urandom(size)
    found = [bytes(block) for block in blocks(KEY, "s1/a", seal(KEY, "s1/a", data))]
    assert b"".join(found) == data
    assert all(len(block) <= BLOCK for block in found)


SEALED = chunked(DATA)


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_any_changed_byte_is_found(at: int, by: int) -> None:
    changed = bytearray(SEALED)
    changed[at] ^= by
    with pytest.raises((Damaged, Refused)):
        unseal(KEY, "s1/a", bytes(changed))
    with pytest.raises((Damaged, Refused)):
        next(blocks(KEY, "s1/a", bytes(changed)))


@given(st.integers(0, len(SEALED) - 1))
def test_any_cut_is_found(length: int) -> None:
    with pytest.raises(Damaged):
        unseal(KEY, "s1/a", SEALED[:length])


@given(st.binary(min_size=1, max_size=200))
def test_anything_added_is_found(more: bytes) -> None:
    with pytest.raises(Damaged):
        unseal(KEY, "s1/a", SEALED + more)


@given(st.integers(0, 6), st.integers(0, 6))
def test_chunks_that_changed_places_are_found(one: int, other: int) -> None:
    size = CHUNK + TAG
    chunks = [SEALED[at : at + size] for at in range(HEADER, len(SEALED), size)]
    assert len(chunks) > 7
    chunks[one], chunks[other] = chunks[other], chunks[one]
    moved = SEALED[:HEADER] + b"".join(chunks)
    if one == other:
        assert unseal(KEY, "s1/a", moved) == DATA
    else:
        with pytest.raises(Damaged):
            unseal(KEY, "s1/a", moved)


def test_an_object_under_the_name_of_another_is_found() -> None:
    with pytest.raises(Damaged) as caught:
        unseal(KEY, "s1/b", seal(KEY, "s1/a", b"what"))
    assert caught.value.extra["object"] == "s1/b"
    assert isinstance(caught.value, OperationFailed)


def test_chunks_of_two_objects_of_one_name_cannot_be_mixed() -> None:
    first, second = chunked(DATA), chunked(DATA)
    assert first != second
    with pytest.raises(Damaged):
        unseal(KEY, "s1/a", first[: HEADER + CHUNK + TAG] + second[HEADER + CHUNK + TAG :])


def test_another_key_is_named_and_shows_nothing_of_ours() -> None:
    other = Key(bytes(32))
    with pytest.raises(Refused, match=KEY.id.hex()) as caught:
        unseal(other, "s1/a", SEALED)
    assert "secrets.json" in str(caught.value.hint)
    assert KEY.secret.hex() not in repr(KEY) + str(caught.value)


@pytest.mark.parametrize("text", ["", "00" * 31, "zz" * 32, "00" * 33])
def test_a_key_is_64_hexadecimal_digits(text: str) -> None:
    with pytest.raises(Invalid):
        Key.from_hex(text)


def test_nothing_can_be_read_from_a_sealed_object() -> None:
    sealed = seal(KEY, "s1/a", b"secret" * 100)
    assert b"secret" not in sealed
    assert b"s1/a" not in sealed
