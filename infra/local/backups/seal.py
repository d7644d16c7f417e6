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


class Sealer:
    """Seals one object as a stream: `feed` as often as needed, then `finish`, once."""

    def __init__(self, key: Key, name: str, *, chunk: int = CHUNK) -> None:
        salt = os.urandom(16)
        self._header = _HEADER.pack(MAGIC, VERSION, key.id, salt, chunk)
        self._unsent = self._header
        self._known = self._header + name.encode()
        self._cipher = key.cipher(salt)
        self._compressor = zstandard.ZstdCompressor(level=LEVEL).compressobj()
        self._chunk = chunk
        self._waiting = bytearray()
        self._number = 0

    def feed(self, data: bytes | memoryview) -> bytes:
        """The sealed bytes that are ready by now."""
        self._waiting += self._compressor.compress(data)
        return self._emit(last=False)

    def finish(self) -> bytes:
        """The rest."""
        self._waiting += self._compressor.flush()
        return self._emit(last=True)

    def _emit(self, *, last: bool) -> bytes:
        out = [self._unsent]
        self._unsent = b""
        while len(self._waiting) > self._chunk:
            out.append(self._encrypt(self._chunk, last=False))
        if last:
            out.append(self._encrypt(len(self._waiting), last=True))
        return b"".join(out)

    def _encrypt(self, size: int, *, last: bool) -> bytes:
        text = bytes(memoryview(self._waiting)[:size])
        del self._waiting[:size]
        nonce = _nonce(self._number, last=last)
        self._number += 1
        return self._cipher.encrypt(nonce, text, self._known)


class Opener:
    """Opens one object as a stream. What `feed` returns is authentic, though perhaps not all: only
    `finish` knows that the end is the end.

    Every method raises `Damaged`, or `Refused` when another key sealed the object.
    """

    def __init__(self, key: Key, name: str) -> None:
        self._key = key
        self._name = name
        self._waiting = bytearray()
        self._cipher: AESGCM | None = None
        self._known = b""
        self._chunk = 0
        self._number = 0
        self._expander = zstandard.ZstdDecompressor().decompressobj()

    def feed(self, sealed: bytes | memoryview) -> bytes:
        self._waiting += sealed
        if self._cipher is None:
            if len(self._waiting) < _HEADER.size:
                return b""
            self._begin()
        out = []
        while len(self._waiting) > self._chunk + TAG:
            out.append(self._decrypt(self._chunk + TAG, last=False))
        return b"".join(out)

    def finish(self) -> bytes:
        if self._cipher is None:
            raise self._damaged("it ends within its header")
        rest = self._decrypt(len(self._waiting), last=True)
        if not self._expander.eof or self._expander.unused_data:
            raise self._damaged("its compressed data does not end where it should")
        return rest

    def _begin(self) -> None:
        header = bytes(self._waiting[: _HEADER.size])
        del self._waiting[: _HEADER.size]
        magic, version, key_id, salt, chunk = _HEADER.unpack(header)
        if magic != MAGIC or version != VERSION or not 0 < chunk <= CHUNK_LIMIT:
            raise self._damaged("it does not begin as a sealed object does")
        if key_id != self._key.id:
            raise Refused(
                f"{self._name} was sealed with the backup key {key_id.hex()}, not with ours, "
                f"{self._key.id.hex()}.",
                hint="Put the backupKey of that platform into secrets.json of the state directory.",
            )
        self._chunk = chunk
        self._known = header + self._name.encode()
        self._cipher = self._key.cipher(salt)

    def _decrypt(self, size: int, *, last: bool) -> bytes:
        assert self._cipher is not None
        sealed = bytes(memoryview(self._waiting)[:size])
        del self._waiting[:size]
        nonce = _nonce(self._number, last=last)
        self._number += 1
        if len(sealed) < TAG:
            raise self._damaged("it ends too early")
        try:
            text = self._cipher.decrypt(nonce, sealed, self._known)
            return self._expander.decompress(text) if text else b""
        except InvalidTag:
            raise self._damaged(
                f"its chunk {self._number} is not what was sealed under this name"
            ) from None
        except (zstandard.ZstdError, EOFError) as error:
            raise self._damaged(f"it cannot be decompressed: {error}") from error

    def _damaged(self, why: str) -> Damaged:
        return Damaged(
            f"The backup object {self._name} is damaged: {why}.",
            hint="Use another backup: regionctl backup list; then take a full one.",
            extra={"object": self._name},
        )


def _nonce(number: int, *, last: bool) -> bytes:
    return struct.pack(">QHBB", number, 0, 0, last)


def seal(key: Key, name: str, data: bytes | memoryview) -> bytes:
    """`data` as the object `name`."""
    sealer = Sealer(key, name)
    return sealer.feed(data) + sealer.finish()


def unseal(key: Key, name: str, sealed: bytes | memoryview) -> bytes:
    """What was sealed as `name`. Raises `Damaged`, or `Refused` when another key sealed it."""
    opener = Opener(key, name)
    return opener.feed(sealed) + opener.finish()
