"""Sealed objects: compressed (zstd 1), then encrypted (AES-256-GCM) in chunks.

    header   "RGSL", version (1 byte), key id (8), salt (16), bytes in a chunk (4)
    chunk    as many bytes of ciphertext, then a tag (16); the last one may be shorter

Each object has a key of its own, derived from the backup key and its random salt, so that a nonce
is never used twice. The nonce of a chunk is its number and whether it is the last; header and name
are authenticated with every chunk. A flipped bit, a missing or added or moved chunk, a cut object
and an object under another name are therefore all found, before any byte of the chunk is used.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from runtime.errors import Invalid, OperationFailed, Refused

MAGIC, VERSION = b"RGSL", 1
LEVEL = 1
CHUNK = 1 << 18
CHUNK_LIMIT = 1 << 24
BLOCK = 1 << 20
TAG = 16
_HEADER = struct.Struct(">4sB8s16sI")


class Damaged(OperationFailed):
    """A sealed object is not what was once sealed under its name."""


@dataclass(frozen=True)
class Key:
    """The backup key, 32 bytes. `id` tells keys apart and gives nothing of them away."""

    secret: bytes = field(repr=False)

    @staticmethod
    def from_hex(text: str) -> Key:
        """Raises `Invalid` when that are not 64 hexadecimal digits."""
        try:
            secret = bytes.fromhex(text)
        except ValueError:
            secret = b""
        if len(secret) != 32:
            raise Invalid("The backup key must be 64 hexadecimal digits.")
        return Key(secret)

    @property
    def id(self) -> bytes:
        return hashlib.sha256(b"regionctl backup key\0" + self.secret).digest()[:8]

    def cipher(self, salt: bytes) -> AESGCM:
        """The cipher of the one object that has this salt."""
        derive = HKDF(hashes.SHA256(), 32, salt, b"regionctl sealed object")
        return AESGCM(derive.derive(self.secret))


def seal(key: Key, name: str, data: bytes | memoryview, *, chunk: int = CHUNK) -> bytes:
    """`data` as the object `name`."""
    text = memoryview(zstandard.ZstdCompressor(level=LEVEL).compress(data))
    salt = os.urandom(16)
    header = _HEADER.pack(MAGIC, VERSION, key.id, salt, chunk)
    known, cipher = header + name.encode(), key.cipher(salt)
    starts = range(0, max(1, len(text)), chunk)
    return b"".join(
        (
            header,
            *(
                cipher.encrypt(_nonce(number, last=at == starts[-1]), text[at : at + chunk], known)
                for number, at in enumerate(starts)
            ),
        )
    )


def unseal(key: Key, name: str, sealed: bytes | memoryview) -> bytes:
    """What was sealed as `name`. Raises `Damaged`, or `Refused` when another key sealed it."""
    text = _decrypt(key, name, sealed)
    try:
        return zstandard.ZstdDecompressor().decompress(text, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise _undone(name, error) from error


def blocks(key: Key, name: str, sealed: bytes | memoryview) -> Iterator[memoryview]:
    """The same a block at a time, in memory that the next block takes over: what is large is
    written faster from memory that the processor has at hand. Raises as `unseal`."""
    text = _decrypt(key, name, sealed)
    room = memoryview(bytearray(BLOCK))
    try:
        with zstandard.ZstdDecompressor().stream_reader(text) as reader:
            while size := reader.readinto(room):
                yield room[:size]
    except zstandard.ZstdError as error:
        raise _undone(name, error) from error


def _decrypt(key: Key, name: str, sealed: bytes | memoryview) -> bytes:
    """All chunks, authenticated; still compressed."""
    if len(sealed) < _HEADER.size:
        raise _damaged(name, "it ends within its header")
    view = memoryview(sealed)
    header = bytes(view[: _HEADER.size])
    magic, version, key_id, salt, chunk = _HEADER.unpack(header)
    if magic != MAGIC or version != VERSION or not 0 < chunk <= CHUNK_LIMIT:
        raise _damaged(name, "it does not begin as a sealed object does")
    if key_id != key.id:
        raise Refused(
            f"{name} was sealed with the backup key {key_id.hex()}, not with ours, {key.id.hex()}.",
            hint="Put the backupKey of that platform into secrets.json of the state directory.",
        )
    known, cipher = header + name.encode(), key.cipher(salt)
    text = []
    starts = range(_HEADER.size, max(_HEADER.size + 1, len(view)), chunk + TAG)
    for number, at in enumerate(starts):
        try:
            nonce = _nonce(number, last=at == starts[-1])
            text.append(cipher.decrypt(nonce, view[at : at + chunk + TAG], known))
        except InvalidTag:
            why = f"its chunk {number + 1} is not what was sealed under this name"
            raise _damaged(name, why) from None
    return b"".join(text)


def _undone(name: str, error: zstandard.ZstdError) -> Damaged:
    return _damaged(name, f"it cannot be decompressed: {error}")


def _damaged(name: str, why: str) -> Damaged:
    return Damaged(
        f"The backup object {name} is damaged: {why}.",
        hint="Use another backup: regionctl backup list; then take a full one.",
        extra={"object": name},
    )


def _nonce(number: int, *, last: bool) -> bytes:
    return struct.pack(">QHBB", number, 0, 0, last)
