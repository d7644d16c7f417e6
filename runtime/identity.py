"""Who sends a request: the claims of its access token, checked in every service.

The gateway checks tokens too, but a service that believed its headers would believe anybody who
can reach its port. An access token is a JWT (RFC 9068) signed with ES256. Public keys and revoked
sessions are read from the catalog about once a second, from any copy of it; while no copy answers,
the last known ones stand. So a revocation is in force everywhere a second or two later, or as soon
as the catalog can be read again, and at the latest when the token expires.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, cast

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, GuestProtocol
from starlette.requests import Request
from starlette.types import Scope

from runtime.clock import Clock
from runtime.errors import Forbidden, Problem, Unauthorized, Unavailable
from runtime.pool import Connection
from runtime.settings import Settings
from runtime.shardmap import Placement
from runtime.shards import Shards, catalog

Role = Literal["user", "admin", "service"]

ROLES = ("user", "admin", "service")
AUDIENCE = "regionctl"
ALGORITHM = "ES256"
TOKEN_TYPE = "at+jwt"  # noqa: S105
TOKEN_SECONDS = 600
LEEWAY_SECONDS = 30
POLL_SECONDS = 1.0
REFRESH_SECONDS = 2.0
GATHER_SECONDS = 0.1
TOKEN_LIMIT = 4096
REMEMBERED = 10_000

# What malformed tokens raise in the library, or in reading the claims.
MALFORMED = (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError)

KEYRING = """
SELECT (SELECT json_object_agg(kid, public_jwk) FROM signing_keys
        WHERE expires_at > clock_timestamp())::text AS keys,
       (SELECT json_object_agg(session_id, extract(epoch FROM expires_at)) FROM revocations
        WHERE expires_at > clock_timestamp())::text AS revoked
"""


@dataclass(frozen=True)
class Caller:
    """`user_id` is None for a client that acts for itself (role service or admin)."""

    role: Role
    client: str
    user_id: int | None = None
    session: int | None = None

    def may_act_for(self, user_id: int) -> bool:
        """A user for itself; admins and services for everybody."""
        return self.role != "user" or self.user_id == user_id

    def __str__(self) -> str:
        """How the audit log names them."""
        return f"client:{self.client}" if self.user_id is None else f"user:{self.user_id}"


def caller(request: Request) -> Caller:
    """Raises `Unauthorized` when the request has no token."""
    found: Caller | None = request.scope.get("caller")
    if found is None:
        raise Unauthorized(
            "This needs an access token.",
            hint="POST /oauth/token, then send the header Authorization: Bearer TOKEN.",
        )
    return found


def require_admin(request: Request) -> Caller:
    """Raises `Unauthorized` or `Forbidden`."""
    found = caller(request)
    if found.role != "admin":
        raise Forbidden("Only an admin may do this.")
    return found


def bearer_of(scope: Scope) -> str | None:
    """The token of the Authorization header, "" if it cannot be one; None for none or Basic."""
    for name, value in cast("Sequence[tuple[bytes, bytes]]", scope["headers"]):
        if name == b"authorization":
            kind, _, token = value.partition(b" ")
            if kind.lower() == b"bearer":
                token = token.strip()
                return token.decode() if token.isascii() and len(token) <= TOKEN_LIMIT else ""
    return None


class _UnknownKey(Exception):
    """The token names a key that is not known here, or not yet."""


@dataclass(frozen=True)
class _Verified:
    caller: Caller
    key: str
    expires: float


class Identity:
    """Verifies access tokens by what the catalog says of keys and revoked sessions."""

    def __init__(self, settings: Settings, shards: Shards, clock: Clock) -> None:
        self._issuer = settings.entry_url
        self._shards = shards
        self._clock = clock
        self._keys: Mapping[str, ECKey] | None = None
        # Until when (seconds since 1970) a session's tokens could be good.
        self._revoked: Mapping[int, float] = {}
        self._seen: OrderedDict[str, _Verified] = OrderedDict()
        self._refreshing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Keeps keys and revocations fresh until cancelled."""
        while True:
            with suppress(Problem):
                await self._read(any_copy=True)
            await self._clock.sleep(POLL_SECONDS)

    async def authenticate(self, token: str) -> Caller:
        """Whose token it is.

        Raises `Unauthorized`; `Unavailable` as long as no keys were ever read.
        """
        found = self._seen.get(token)
        if found is None or self._keys is None or found.key not in self._keys:
            # A key that is not there may have been withdrawn, or the copy read last may be behind.
            self._seen.pop(token, None)
            found = self._seen[token] = await self._verified(token)
            if len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
        elif found.expires + LEEWAY_SECONDS <= self._clock.now().timestamp():
            del self._seen[token]
            raise _refused("it has expired")
        else:
            self._seen.move_to_end(token)
        if found.caller.session in self._revoked:
            raise _refused("its session was ended")
        return found.caller

    async def public_keys(self) -> list[Mapping[str, Any]]:
        """As JWKs. Raises `Unavailable` as long as none were ever read."""
        if not self._keys:
            await self._refresh()
        if self._keys is None:
            raise _unread()
        return [self._keys[kid].as_dict(private=False) for kid in sorted(self._keys)]

    async def _verified(self, token: str) -> _Verified:
        if self._keys is None:
            await self._refresh()
        try:
            return self._verify(token)
        except _UnknownKey:
            await self._refresh()
        try:
            return self._verify(token)
        except _UnknownKey:
            raise _refused("nobody here has its key") from None

    def _verify(self, token: str) -> _Verified:
        """Raises `Unauthorized` or `_UnknownKey`."""
        if self._keys is None:
            raise _unread()
        keys = self._keys
        kid = ""

        def key_of(token: GuestProtocol) -> ECKey:
            nonlocal kid
            kid = str(token.headers().get("kid", ""))
            if token.headers().get("alg") != ALGORITHM:
                raise ValueError("alg")
            if kid not in keys:
                raise _UnknownKey
            return keys[kid]

        try:
            decoded = jwt.decode(token, key_of, algorithms=[ALGORITHM])
            if str(decoded.header.get("typ", "")).lower() != TOKEN_TYPE:
                raise ValueError("typ")
            self._registry().validate(decoded.claims)
            return _Verified(_caller(decoded.claims), kid, float(decoded.claims["exp"]))
        except MALFORMED as error:
            raise _refused(_reason(error)) from error

    def _registry(self) -> jwt.JWTClaimsRegistry:
        return jwt.JWTClaimsRegistry(
            now=int(self._clock.now().timestamp()),
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": AUDIENCE},
            exp={"essential": True},
            iat={"essential": True},
            sub={"essential": True},
        )

    async def _refresh(self) -> None:
        """Waits, but not for long, for a reading from the primary that begins after this call."""
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._read_soon())
        await asyncio.wait({self._refreshing}, timeout=REFRESH_SECONDS)

    async def _read_soon(self) -> None:
        """One reading for all who ask within a moment, so a flood of invented keys costs little."""
        await self._clock.sleep(GATHER_SECONDS)
        self._refreshing = None
        with suppress(Problem):
            await self._read(any_copy=False)

    async def _read(self, *, any_copy: bool) -> None:
        done = await self._shards.read(catalog, _keyring, any_copy=any_copy)
        keys, revoked = done.value
        old = self._keys or {}
        self._keys = {kid: old.get(kid) or ECKey.import_key(jwk) for kid, jwk in keys.items()}
        # A copy may be behind the one that was read before it; no revocation is taken back.
        now = self._clock.now().timestamp()
        kept = {session: until for session, until in self._revoked.items() if until > now}
        self._revoked = kept | revoked


async def _keyring(
    connection: Connection, place: Placement
) -> tuple[dict[str, Any], dict[int, float]]:
    row: Any = await connection.fetchrow(KEYRING)
    revoked = json.loads(row["revoked"] or "{}")
    return json.loads(row["keys"] or "{}"), {int(id): until for id, until in revoked.items()}


def _caller(claims: Mapping[str, Any]) -> Caller:
    """Raises `ValueError` or `KeyError` for claims that we never make."""
    role, session = claims["role"], claims.get("sid")
    if role not in ROLES:
        raise ValueError("role")
    return Caller(
        role=role,
        client=str(claims["client_id"]),
        user_id=None if session is None else int(claims["sub"]),
        session=None if session is None else int(session),
    )


def _reason(error: Exception) -> str:
    """What was wrong, without a word of the token itself."""
    code = str(getattr(error, "error", ""))
    return {
        "expired_token": "it has expired",
        "invalid_claim": "it is not for this platform, or not yet valid",
        "missing_claim": "a claim is missing",
        "bad_signature": "its signature is wrong",
    }.get(code, "it is no access token of this platform")


def _unread() -> Unavailable:
    return Unavailable("The keys of tokens could not be read yet.", hint="Try again.")


def _refused(why: str) -> Unauthorized:
    return Unauthorized(
        f"The access token is refused: {why}.",
        hint="Get a new one from POST /oauth/token.",
        extra={"error": "invalid_token"},
    )
