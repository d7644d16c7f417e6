"""Object storage by the S3 API: invoices, the analytics' lines.

Any S3 endpoint serves (`REGIONCTL_OBJECTS`); here it is SeaweedFS. Requests are path-style,
`/bucket/key`, signed with SigV4. A signed URL is for the address that clients use: SigV4 signs the
host, so it is made as if the storage answered there, which the edge sees to.

On AWS (`REGIONCTL_OBJECTS_BUCKET`) it is S3 itself: one bucket with a folder for each purpose,
opened by the role of the task; a signed URL leads there directly.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from runtime.errors import Invalid, NotFound, Unavailable
from runtime.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obstore.store import ClientConfig, RetryConfig, S3Store

log = logging.getLogger(__name__)

INVOICES = "invoices"
ANALYTICS = "analytics"
# What SigV4 names; the storage here serves one region and does not look at it.
SIGNING_REGION = "us-east-1"
TIMEOUT_SECONDS = 5.0
RETRIES = 2
SIGNED_LIMIT_SECONDS = 7 * 24 * 3600


class Objects:
    """The object storage of this process's region. Every method raises `Unavailable`."""

    def __init__(self, settings: Settings) -> None:
        self._endpoint = settings.objects.rstrip("/")
        self._public = settings.entry_url.rstrip("/")
        self._key = settings.secrets.get("objectsKey", "")
        self._secret = settings.secrets.get("objectsSecret", "")
        self._one_bucket, self._region = settings.objects_bucket, settings.region
        self._stores: dict[tuple[str, str], S3Store] = {}

    async def ensure(self, buckets: Iterable[str]) -> None:
        """Every one of `buckets` exists. Folders of one bucket need not be made."""
        if self._one_bucket:
            return
        import httpx  # obstore makes no buckets: it signs the request, and httpx sends it.
        import obstore

        async with httpx.AsyncClient(trust_env=False, timeout=TIMEOUT_SECONDS) as client:
            for bucket in buckets:
                url = obstore.sign(self._store(bucket), "PUT", "", timedelta(minutes=1))
                try:
                    answer = await client.put(url)
                except httpx.HTTPError as error:
                    raise _away(f"bucket {bucket}", type(error).__name__) from error
                if answer.status_code not in (200, 204, 409):
                    raise _away(f"bucket {bucket}", f"{answer.status_code} {answer.text[:200]}")

    async def put(
        self, bucket: str, key: str, body: bytes, content_type: str = "application/octet-stream"
    ) -> None:
        """`key` holds `body`, whatever it held before. The storage has it when this returns.

        A bucket that does not exist, in a region that is new or lost its storage, is made.
        """
        try:
            await self._put(bucket, key, body, content_type)
        except NotFound:
            await self.ensure([bucket])
            await self._put(bucket, key, body, content_type)

    async def _put(self, bucket: str, key: str, body: bytes, content_type: str) -> None:
        import obstore

        with _problems(f"{bucket}/{key}"):
            await obstore.put_async(
                self._store(bucket),
                key,
                body,
                attributes={"Content-Type": content_type},
                use_multipart=False,
            )

    async def get(self, bucket: str, key: str) -> bytes:
        """Raises `NotFound`."""
        import obstore

        with _problems(f"{bucket}/{key}"):
            found = await obstore.get_async(self._store(bucket), key)
            return bytes(await found.bytes_async())

    async def exists(self, bucket: str, key: str) -> bool:
        import obstore

        try:
            with _problems(f"{bucket}/{key}"):
                await obstore.head_async(self._store(bucket), key)
        except NotFound:
            return False
        return True

    async def delete(self, bucket: str, key: str) -> None:
        """`key` is gone, also when it was never there."""
        import obstore

        with _problems(f"{bucket}/{key}"):
            try:
                await obstore.delete_async(self._store(bucket), key)
            except FileNotFoundError:
                return

    async def list(self, bucket: str, prefix: str = "") -> AsyncIterator[str]:
        """Keys below the folder `prefix`, in order of the storage."""
        with _problems(f"{bucket}/{prefix}"):
            async for page in self._store(bucket).list(prefix or None):
                for found in page:
                    yield found["path"]

    def sign(
        self, bucket: str, key: str, seconds: int, method: Literal["GET", "HEAD"] = "GET"
    ) -> str:
        """The public URL by which anybody may read `key` for `seconds` (at most a week)."""
        import obstore

        if not 0 < seconds <= SIGNED_LIMIT_SECONDS:
            raise Invalid(f"A URL cannot be signed for {seconds} seconds.")
        store = self._store(bucket, self._public)
        return obstore.sign(store, method, key, timedelta(seconds=seconds))

    def _store(self, bucket: str, endpoint: str | None = None) -> S3Store:
        endpoint = endpoint or self._endpoint
        if not endpoint:
            raise Unavailable(
                "This service has no object storage.",
                hint="Set REGIONCTL_OBJECTS to the base URL of an S3 endpoint.",
            )
        if (bucket, endpoint) not in self._stores:
            self._stores[bucket, endpoint] = self._open(bucket, endpoint)
        return self._stores[bucket, endpoint]

    def _open(self, bucket: str, endpoint: str) -> S3Store:
        from obstore.store import S3Store

        retry: RetryConfig = {
            "max_retries": RETRIES,
            "retry_timeout": timedelta(seconds=TIMEOUT_SECONDS),
        }
        client: ClientConfig = {"timeout": f"{TIMEOUT_SECONDS}s", "connect_timeout": "1s"}
        if self._one_bucket:
            return S3Store(
                self._one_bucket,
                prefix=bucket,
                region=self._region,
                virtual_hosted_style_request=True,
                client_options=client,
                retry_config=retry,
            )
        return S3Store(
            bucket,
            endpoint=endpoint,
            region=SIGNING_REGION,
            access_key_id=self._key,
            secret_access_key=self._secret,
            virtual_hosted_style_request=False,
            client_options={**client, "allow_http": True},
            retry_config=retry,
        )


@contextmanager
def _problems(what: str) -> Iterator[None]:
    """obstore's errors as `NotFound` or `Unavailable`. Its texts may quote a signature: cut."""
    from obstore.exceptions import BaseError

    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"There is no object {what}.") from error
    except (BaseError, OSError) as error:
        raise _away(what, str(error).partition("\n")[0][:200]) from error


def _away(what: str, reason: object) -> Unavailable:
    """The storage's own words are for the log: they name hosts, and what a signature was of."""
    log.warning("object storage", extra={"data": {"object": what, "reason": str(reason)}})
    return Unavailable(
        "The object storage does not answer as it should.",
        hint="Look at the state of the region's objects instance: regionctl status.",
    )
