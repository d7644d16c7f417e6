"""The bucket of backups in one region's object store, by the S3 API.

What is put is verified, and what is got too: each object carries its SHA-256 as metadata. Names of
objects are paths such as "s1/wal/00000001/000000010000000000000002".
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from infra.local.backups.seal import Damaged, Key, blocks, seal, unseal
from runtime.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from obstore.store import S3Store

BUCKET = "backups"
# What SigV4 names; the storage here serves one region and does not look at it.
SIGNING_REGION = "us-east-1"
CONNECT_SECONDS = 1.0
# A request may take this long, and a second more for every four megabytes that it carries.
ANSWER_SECONDS = 5.0
BYTES_A_SECOND = 4 << 20
AT_ONCE = 4
_SHA256 = "sha256"
T = TypeVar("T")


@dataclass(frozen=True)
class Stored:
    """One object: its size in bytes and, where they were seen, its SHA-256, as it is stored."""

    name: str
    size: int
    modified: datetime
    sha256: str = ""


@dataclass(frozen=True)
class Digests:
    """Of a body, in hexadecimal digits: what it is known by, and what the storage says of it."""

    sha256: str
    md5: str


def digests(body: bytes) -> Digests:
    md5 = hashlib.md5(body, usedforsecurity=False)
    return Digests(hashlib.sha256(body).hexdigest(), md5.hexdigest())


class Store:
    """The bucket at the S3 endpoint `endpoint`, a base URL of `region`.

    Every method raises `Unavailable`, within seconds, when the storage does not answer or stalls.
    """

    def __init__(
        self, region: str, endpoint: str, key: str, secret: str, *, bucket: str = BUCKET
    ) -> None:
        self.region = region
        self.bucket = bucket
        self._endpoint = endpoint
        self._credentials = (key, secret)
        self._made: S3Store | None = None

    async def ensure(self) -> None:
        """The bucket exists."""
        import obstore

        url = urlsplit(obstore.sign(self._s3(), "PUT", "", timedelta(minutes=1)))
        with self._problems("the bucket"):
            async with asyncio.timeout(ANSWER_SECONDS):
                status = await _request("PUT", url.hostname or "", url.port or 80, url)
        if status not in (200, 204, 409):
            raise self._away("the bucket", f"HTTP {status}")

    async def put(self, name: str, body: bytes, known: Digests | None = None) -> Stored:
        """`name` holds `body`, whatever it held before, and the storage says so itself. `known`
        saves us from computing them."""
        import obstore

        if known is None:
            known = await asyncio.to_thread(digests, body)
        attributes = {"Content-Type": "application/octet-stream", _SHA256: known.sha256}

        async def send() -> Any:
            s3 = self._s3()
            return await obstore.put_async(
                s3, name, body, attributes=attributes, use_multipart=False
            )

        try:
            await self._ask(name, send, len(body))
        except NotFound:
            await self.ensure()
            await self._ask(name, send, len(body))
        return await self._confirm(name, len(body), known)

    async def _confirm(self, name: str, size: int, known: Digests) -> Stored:
        """What the storage has by that name is what was put. Raises `Damaged`."""
        import obstore

        async def head() -> Any:
            found = await obstore.get_async(self._s3(), name, options={"head": True})
            return found.meta, found.attributes

        meta, attributes = await self._ask(name, head)
        etag = str(meta["e_tag"] or "").strip('"')
        if meta["size"] != size or attributes.get(_SHA256) != known.sha256:
            raise _damaged(name, f"the storage has {meta['size']} of {size} bytes")
        if etag != known.md5:
            await self.get(name)  # an ETag need not be the MD5: then the bytes themselves say it
        return Stored(name, meta["size"], meta["last_modified"], known.sha256)

    async def get(self, name: str, sha256: str = "") -> bytes:
        """What was put; with `sha256`, that very one of perhaps several under this name. Raises
        `NotFound`, and `Damaged` when its SHA-256 is another."""
        import obstore

        async def begin() -> Any:
            return await obstore.get_async(self._s3(), name)

        found = await self._ask(name, begin)

        async def rest() -> Any:
            return await found.bytes_async()

        body = bytes(await self._ask(name, rest, found.meta["size"]))
        digest = await asyncio.to_thread(lambda: hashlib.sha256(body).hexdigest())
        if found.attributes.get(_SHA256) != digest:
            raise _damaged(name, "its SHA-256 is not what it was when it was stored")
        if sha256 not in ("", digest):
            raise _damaged(name, "it is not the one that is listed")
        return body

    async def find(self, name: str) -> Stored | None:
        """None when there is no such object."""
        import obstore

        async def head() -> Any:
            return await obstore.head_async(self._s3(), name)

        try:
            meta = await self._ask(name, head)
        except NotFound:
            return None
        return Stored(name, meta["size"], meta["last_modified"])

    async def list(self, prefix: str = "") -> Sequence[Stored]:
        """All objects below the folder `prefix`, by name. None when there is no bucket yet."""
        found: list[Stored] = []

        async def pages() -> AsyncIterator[Any]:
            async for page in self._s3().list(prefix or None):
                yield page

        try:
            with self._problems(prefix or "the bucket"):
                listing = pages()
                while True:
                    async with asyncio.timeout(ANSWER_SECONDS):
                        page = await anext(listing, None)
                    if page is None:
                        break
                    found += [Stored(m["path"], m["size"], m["last_modified"]) for m in page]
        except NotFound:
            return []
        return sorted(found, key=lambda each: each.name)

    async def folders(self) -> Sequence[str]:
        """The names of the folders at the top."""
        import obstore

        async def ask() -> Any:
            return await obstore.list_with_delimiter_async(self._s3())

        try:
            found = await self._ask("the bucket", ask)
        except NotFound:
            return []
        return sorted(found["common_prefixes"])

    async def delete(self, names: Iterable[str]) -> None:
        """They are gone, also those that were never there."""
        import obstore

        limit = asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> None:
            async def remove() -> Any:
                return await obstore.delete_async(self._s3(), name)

            async with limit:
                try:
                    await self._ask(name, remove)
                except NotFound:
                    return

        await asyncio.gather(*(one(name) for name in names))

    async def _ask(self, name: str, call: Callable[[], Any], size: int = 0) -> Any:
        with self._problems(name):
            async with asyncio.timeout(ANSWER_SECONDS + size / BYTES_A_SECOND):
                return await call()

    def _s3(self) -> S3Store:
        from obstore.store import S3Store

        if self._made is None:
            key, secret = self._credentials
            self._made = S3Store(
                self.bucket,
                endpoint=self._endpoint,
                region=SIGNING_REGION,
                access_key_id=key,
                secret_access_key=secret,
                virtual_hosted_style_request=False,
                client_options={
                    "allow_http": True,
                    "timeout": "600s",
                    "connect_timeout": f"{CONNECT_SECONDS}s",
                },
                retry_config={"max_retries": 1, "retry_timeout": timedelta(seconds=2)},
            )
        return self._made

    @contextmanager
    def _problems(self, what: str) -> Iterator[None]:
        """obstore's errors as `NotFound` or `Unavailable`. Its texts may quote a signature: cut."""
        from obstore.exceptions import BaseError

        try:
            yield
        except FileNotFoundError as error:
            raise NotFound(f"There is no backup object {what} in {self.region}.") from error
        except TimeoutError as error:
            raise self._away(what, "no answer in time") from error
        except (BaseError, OSError, ValueError) as error:
            if "NoSuchBucket" in str(error):
                raise NotFound(f"{self.region} has no bucket {self.bucket} yet.") from error
            raise self._away(what, str(error).partition("\n")[0][:200]) from error

    def _away(self, what: str, reason: str) -> Unavailable:
        return Unavailable(
            f"The object storage of {self.region} does not answer as it should.",
            hint=f"regionctl status; look at the objects instance of {self.region}.",
            extra={"object": what, "reason": reason},
        )


class Vault:
    """A store whose objects are sealed under their names."""

    def __init__(self, store: Store, key: Key) -> None:
        self.store = store
        self.key = key

    async def put(self, name: str, data: bytes) -> Stored:
        """Sealed, stored and confirmed. Raises as `Store.put`."""
        return await self.store.put(name, await asyncio.to_thread(seal, self.key, name, data))

    async def get(self, name: str, sha256: str = "") -> bytes:
        """What was put. Raises as `Store.get` and `unseal`."""
        sealed = await self.store.get(name, sha256)
        return await asyncio.to_thread(unseal, self.key, name, sealed)

    async def use(self, name: str, sha256: str, work: Callable[[Iterator[memoryview]], T]) -> T:
        """What `work` makes, in a thread, of what was put: see `blocks`. Raises as `get`."""
        sealed = await self.store.get(name, sha256)
        return await asyncio.to_thread(lambda: work(blocks(self.key, name, sealed)))


async def _request(method: str, host: str, port: int, url: Any) -> int:
    """The status of one HTTP request without a body, for which no client need be loaded."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        head = (
            f"{method} {url.path or '/'}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\n"
            "Content-Length: 0\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode())
        await writer.drain()
        return int((await reader.readline()).split()[1])
    except (IndexError, ValueError) as error:
        raise ConnectionError("no HTTP answer") from error
    finally:
        writer.close()


def _damaged(name: str, why: str) -> Damaged:
    return Damaged(
        f"The backup object {name} is damaged: {why}.",
        hint="Use another backup: regionctl backup list; then take a full one.",
        extra={"object": name},
    )
