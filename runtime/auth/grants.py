"""The three ways to a token, and the way to end one."""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from cryptography.fernet import Fernet, InvalidToken

from runtime import audit, emails, passwords
from runtime.auth import rules, store
from runtime.auth.forms import BadClient, BadGrant, Form
from runtime.auth.keys import Keys
from runtime.auth.sealing import fernet
from runtime.auth.throttle import Throttle
from runtime.context import Context
from runtime.errors import Invalid, Problem, TooManyRequests, Unauthorized
from runtime.identity import AUDIENCE, TOKEN_SECONDS, Role
from runtime.passwords import Passwords
from runtime.shards import catalog, of_user

PUBLIC = "public"
CLIENT_NAME = re.compile(r"[!-~]{1,100}")
KEY = re.compile(r"[!-~]{1,200}")
IDS = struct.Struct(">QQ")


@dataclass(frozen=True)
class Shown:
    """A refresh token that we made, some time: whose, of which session, and its hash."""

    user_id: int
    session_id: int
    hash: bytes


class Grants:
    def __init__(self, context: Context, keys: Keys, throttle: Throttle) -> None:
        self._shards = context.shards
        self._clock = context.clock
        self._identity = context.identity
        self._issuer = context.settings.entry_url
        self._secret = context.settings.secrets.get("tokenKey", "")
        self._keys = keys
        self._throttle = throttle
        self._passwords = Passwords()

    async def token(self, form: Form, key: str | None, origin: audit.Origin) -> dict[str, Any]:
        """The answer to a token request. Raises `BadGrant`, `BadClient` or `TooManyRequests`."""
        if form.fields.get("scope", "").strip():
            raise BadGrant("invalid_scope", "There are no scopes: leave the field out.")
        if key is not None and not KEY.fullmatch(key):
            raise BadGrant("invalid_request", "The Idempotency-Key is malformed.")
        kind = form["grant_type"]
        if kind == "password":
            return await self._password(form, origin)
        if kind == "refresh_token":
            return await self._refresh(form, key, origin)
        if kind == "client_credentials":
            return await self._client_credentials(form, origin)
        raise BadGrant(
            "unsupported_grant_type",
            "That grant is not served.",
            hint="One of: password, refresh_token, client_credentials.",
        )

    async def revoke(self, form: Form, origin: audit.Origin) -> None:
        """Ends the session of a refresh or access token; nothing, for any other text (RFC 7009)."""
        await self._authenticated(form, origin)
        session = await self._session_of(form["token"])
        if session is None:
            return
        user_id, session_id = session
        work = partial(
            store.end_session, user_id=user_id, session_id=session_id, now=self._clock.now()
        )
        await self._shards.write(of_user(user_id), work)
        detail = {"session": str(session_id)}
        event = audit.Event("session.revoke", "allowed", f"user:{user_id}", origin, detail)
        await audit.write(self._shards, event, [session_id])

    async def _session_of(self, token: str) -> tuple[int, int] | None:
        shown = self._opened(token)
        if shown:
            return shown.user_id, shown.session_id
        try:
            caller = await self._identity.authenticate(token)
        except Unauthorized:
            return None
        if caller.user_id is None or caller.session is None:
            return None
        return caller.user_id, caller.session

    async def _password(self, form: Form, origin: audit.Origin) -> dict[str, Any]:
        name, password = form["username"], form["password"]
        client, _ = await self._authenticated(form, origin)
        try:
            email = emails.normal(name)
        except Invalid:
            email = ""
        attempt = await self._throttle.begin(email or name, origin.address)
        if attempt.wait:
            await self._denied(origin, email or "malformed", "throttled")
            raise TooManyRequests(
                "Too many logins failed.",
                hint="Wait, then try again.",
                extra={"retryAfter": math.ceil(attempt.wait)},
            )
        try:
            login = await self._login(email) if email else None
            stored = login.password_hash if login else None
            right = await self._passwords.matches(stored, password)
        except Problem:
            await self._throttle.withdrawn(attempt)
            raise
        if login is None or not right:
            await self._denied(origin, email or "malformed", "wrong name or password")
            _no_login()
        session, token = self._new_session(login.user_id, client)
        renew = passwords.outdated(login.password_hash)
        work = partial(
            store.open_session,
            session=session,
            verified=login.password_hash,
            rehashed=await self._passwords.hashed(password) if renew else None,
        )
        opened = (await self._shards.write(of_user(login.user_id), work)).value
        if opened is None:
            await self._denied(origin, email, "changed meanwhile")
            _no_login()
        await self._throttle.succeeded(attempt)
        detail = {"session": str(session.id)}
        event = audit.Event("login", "allowed", f"user:{login.user_id}", origin, detail)
        await audit.write(self._shards, event, opened.ended)
        return await self._answer(login.user_id, opened.role, client, session.id, token)

    async def _login(self, email: str) -> store.Login | None:
        """An address that nobody has costs the same questions as one that somebody has."""
        listed = await self._shards.read(
            catalog, lambda connection, _: store.user_of(connection, email)
        )
        nobody = int.from_bytes(hashlib.sha256(email.encode()).digest()[:8]) >> 1
        user_id = listed.value or nobody
        done = await self._shards.read(
            of_user(user_id), lambda connection, _: store.login(connection, user_id)
        )
        return done.value if listed.value else None

    async def _refresh(self, form: Form, key: str | None, origin: audit.Origin) -> dict[str, Any]:
        client, _ = await self._authenticated(form, origin)
        shown = self._opened(form["refresh_token"])
        if shown is None:
            raise BadGrant("invalid_grant", "That is no refresh token of this platform.")
        token = self._refresh_token(shown.user_id, shown.session_id)
        work = partial(
            store.rotate,
            user_id=shown.user_id,
            session_id=shown.session_id,
            client=client,
            shown=shown.hash,
            fresh=_hash(token),
            key=key,
            now=self._clock.now(),
        )
        rotation = (await self._shards.write(of_user(shown.user_id), work)).value
        if rotation is None:
            raise BadGrant("invalid_grant", "The session is unknown, or another client's.")
        if rotation.verdict in ("reuse", "ended"):
            await self._refused(shown, rotation.verdict, origin)
        return await self._answer(shown.user_id, rotation.role, client, shown.session_id, token)

    async def _refused(self, shown: Shown, verdict: str, origin: audit.Origin) -> NoReturn:
        """Also of a session that ended before: an attempt that was cut off may have ended it."""
        detail = {"session": str(shown.session_id), "reason": verdict}
        event = audit.Event("session.reuse", "denied", f"user:{shown.user_id}", origin, detail)
        await audit.write(self._shards, event, [shown.session_id])
        raise BadGrant(
            "invalid_grant",
            "This refresh token was used before, or its session was ended; the session is over.",
            hint="Log in again. To repeat a request, send the same Idempotency-Key.",
        )

    async def _client_credentials(self, form: Form, origin: audit.Origin) -> dict[str, Any]:
        client, role = await self._authenticated(form, origin)
        if role is None:
            await self._denied_client(client, "no secret", origin)
            raise BadClient("This grant needs a client with a secret.")
        token = await self._access_token({"sub": client, "role": role, "client_id": client})
        return {"access_token": token, "token_type": "Bearer", "expires_in": TOKEN_SECONDS}

    async def _authenticated(self, form: Form, origin: audit.Origin) -> tuple[str, Role | None]:
        """The client's name, and its role if it proved to be a registered one.

        Raises `BadClient`: also for who comes without a secret under the name of one that has it.
        """
        if form.client == PUBLIC and form.secret is None:
            return PUBLIC, None
        if not CLIENT_NAME.fullmatch(form.client):
            raise BadClient("No client has such a name.")
        done = await self._shards.read(
            catalog, lambda connection, _: store.client(connection, form.client), any_copy=True
        )
        known = done.value
        if form.secret is None and known is None:
            return form.client, None
        given = hashlib.sha256((form.secret or "").encode()).digest()
        stored, role = known or (bytes(32), None)
        if not hmac.compare_digest(given, stored) or role is None:
            await self._denied_client(form.client, "wrong secret", origin)
            raise BadClient("The client is unknown, or its secret is wrong.")
        return form.client, role

    async def _denied(self, origin: audit.Origin, subject: str, reason: str) -> None:
        event = audit.Event("login", "denied", subject, origin, {"reason": reason})
        await audit.write(self._shards, event)

    async def _denied_client(self, client: str, reason: str, origin: audit.Origin) -> None:
        event = audit.Event(
            "client.grant", "denied", f"client:{client}", origin, {"reason": reason}
        )
        await audit.write(self._shards, event)

    def _new_session(self, user_id: int, client: str) -> tuple[rules.Session, str]:
        now, id = self._clock.now(), secrets.randbits(63) or 1
        token = self._refresh_token(user_id, id)
        expires = rules.session_expiry(now, now)
        session = rules.Session(id, user_id, client, _hash(token), None, None, None, now, expires)
        return session, token

    async def _answer(
        self, user_id: int, role: Role, client: str, session_id: int, refresh_token: str
    ) -> dict[str, Any]:
        claims = {
            "sub": str(user_id), "role": role, "client_id": client, "sid": str(session_id),
        }  # fmt: skip
        return {
            "access_token": await self._access_token(claims),
            "token_type": "Bearer",
            "expires_in": TOKEN_SECONDS,
            "refresh_token": refresh_token,
            "user_id": str(user_id),
        }

    async def _access_token(self, claims: Mapping[str, Any]) -> str:
        now = int(self._clock.now().timestamp())
        times = {"iat": now, "exp": now + TOKEN_SECONDS, "jti": secrets.token_urlsafe(12)}
        return await self._keys.sign({"iss": self._issuer, "aud": AUDIENCE, **claims, **times})

    def _refresh_token(self, user_id: int, session_id: int) -> str:
        content = IDS.pack(user_id, session_id) + secrets.token_bytes(32)
        return self._fernet().encrypt(content).decode()

    def _opened(self, token: str) -> Shown | None:
        """None for what we never made: nobody ends a session by guessing."""
        try:
            content = self._fernet().decrypt(token.encode())
        except (InvalidToken, UnicodeError):
            return None
        user_id, session_id = IDS.unpack_from(content)
        return Shown(user_id, session_id, _hash(token))

    def _fernet(self) -> Fernet:
        return fernet(self._secret, "refresh tokens")


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _no_login() -> NoReturn:
    """The same words for an unknown name and a wrong password."""
    raise BadGrant("invalid_grant", "The e-mail address or the password is wrong.")
