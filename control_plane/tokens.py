"""The API's tokens: `rct_ID_SECRET`, of which only the SHA-256 of the secret is kept.

A secret has 256 random bits, so a plain hash is enough: there is nothing to guess. The root token
is a file of the state directory, not a row here.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import RowMapping, insert, select, update

from control_plane import audit, records
from control_plane.access import RESERVED_NAMES, ROLES, Actor, Asked, Role
from control_plane.database import Database
from runtime.clock import Clock
from runtime.errors import Invalid, NotFound, Refused, Unauthorized

JSON = dict[str, Any]
State = Literal["active", "expired", "revoked"]

PREFIX = "rct"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
OPERATION = re.compile(r"op-\d+")


@dataclass(frozen=True)
class Token:
    """`created_by` and `revoked_by` are names of actors."""

    id: str
    name: str
    role: Role
    secret_hash: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None

    def state(self, now: datetime) -> State:
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"

    def to_json(self, now: datetime) -> JSON:
        """Everything but the hash."""
        return {
            "id": self.id,
            "name": self.name,
            "role": self.role,
            "state": self.state(now),
            "createdAt": self.created_at.isoformat(),
            "createdBy": self.created_by,
            "expiresAt": _text(self.expires_at),
            "revokedAt": _text(self.revoked_at),
            "revokedBy": self.revoked_by,
        }


def split(text: str) -> tuple[str, str] | None:
    """Id and secret of what a client sent; None when it is no token."""
    parts = text.split("_", 2)
    if len(parts) != 3 or parts[0] != PREFIX:
        return None
    return parts[1], parts[2]


def hash_of(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


class Tokens:
    def __init__(self, database: Database, clock: Clock) -> None:
        self.database = database
        self.clock = clock

    async def create(
        self, name: str, role: str, lifetime: timedelta | None, by: Asked
    ) -> tuple[Token, str]:
        """A new token and its text, which nobody can find out again.

        Raises `Invalid` for an impossible name or role, `Refused` while another active token has
        the name: records of what it did would be ambiguous.
        """
        check_name(name)
        chosen = role_of(role)
        now = self.clock.now()
        id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        expires = None if lifetime is None else now + lifetime
        token = Token(id, name, chosen, hash_of(secret), now, by.actor, expires, None, None)
        table = records.token
        async with self.database.write() as connection:
            rows = await connection.execute(select(table).where(table.c.name == name))
            for each in map(_token_of, rows.mappings()):
                if each.state(now) == "active":
                    raise Refused(
                        f"There is a token of the name {name!r} already: {each.id}.",
                        hint=f"regionctl token revoke {each.id}, or choose another name",
                    )
            await connection.execute(
                insert(table).values(
                    id=id,
                    name=name,
                    role=role,
                    secret_hash=token.secret_hash,
                    created_at=now.isoformat(),
                    created_by=by.actor,
                    expires_at=_text(expires),
                )
            )
            limit = f"until {expires.isoformat()}" if expires else "without end"
            outcome = f"token {id}, {role}, {limit}"
            await audit.append(connection, now, "asked", by.about(name), outcome=outcome)
        return token, f"{PREFIX}_{id}_{secret}"

    async def revoke(self, id: str, by: Asked) -> Token:
        """It is good no more, from now on. Raises `NotFound`."""
        table = records.token
        now = self.clock.now()
        async with self.database.write() as connection:
            await connection.execute(
                update(table)
                .where(table.c.id == id, table.c.revoked_at.is_(None))
                .values(revoked_at=now.isoformat(), revoked_by=by.actor)
            )
            rows = await connection.execute(select(table).where(table.c.id == id))
            row = rows.mappings().one_or_none()
            if row is None:
                raise NotFound(f"There is no token {id!r}.", hint="regionctl token list")
            token = _token_of(row)
            await audit.append(
                connection, now, "asked", by.about(token.name), outcome=f"token {id}"
            )
        return token

    async def list(self) -> list[Token]:
        """Oldest first."""
        table = records.token
        async with self.database.read() as connection:
            rows = await connection.execute(select(table).order_by(table.c.created_at, table.c.id))
            return [_token_of(row) for row in rows.mappings()]

    async def find(self, text: str) -> Token:
        """The token that a client sent, active or not. Raises `Unauthorized`."""
        known = split(text)
        id, secret = known or ("", "")
        table = records.token
        async with self.database.read() as connection:
            rows = await connection.execute(select(table).where(table.c.id == id))
            row = rows.mappings().one_or_none()
        expected = hash_of("") if row is None else row["secret_hash"]
        same = hmac.compare_digest(hash_of(secret), expected)
        if row is None or not same:
            raise Unauthorized(
                "The request carries no valid token.",
                hint="Use the token in the state directory (control/token), or one of "
                "regionctl token create in a file that REGIONCTL_TOKEN_FILE names.",
            )
        return _token_of(row)

    async def still_good(self, actor: Actor) -> bool:
        """Whether what proved the actor would prove it now: for answers that never end."""
        if actor.token is None:
            return True
        table = records.token
        async with self.database.read() as connection:
            rows = await connection.execute(select(table).where(table.c.id == actor.token))
            row = rows.mappings().one_or_none()
        return row is not None and _token_of(row).state(self.clock.now()) == "active"


def check_good(token: Token, now: datetime) -> Actor:
    """Who the token proves. Raises `Unauthorized` when it has expired or was revoked."""
    state = token.state(now)
    if state != "active":
        at = token.revoked_at if state == "revoked" else token.expires_at
        word = "was revoked" if state == "revoked" else "expired"
        raise Unauthorized(
            f"The token {token.id} of {token.name} {word} at {_text(at)}.",
            hint=f"Ask an admin for another: regionctl token create NAME --role {token.role}",
        )
    return Actor(token.name, token.role, token.id)


def role_of(name: str) -> Role:
    """Raises `Invalid`."""
    for role in ROLES:
        if role == name:
            return role
    raise Invalid(f"There is no role {name!r}.", hint=f"One of: {', '.join(ROLES)}")


def check_name(name: str) -> None:
    """Raises `Invalid` for a name that is none, or that the control plane itself acts under."""
    if not NAME.fullmatch(name):
        raise Invalid(
            f"{name!r} is no name for a token.",
            hint="1 to 64 letters, digits and . _ @ - ; the first is a letter or digit.",
        )
    if name in RESERVED_NAMES or OPERATION.fullmatch(name):
        raise Invalid(f"{name!r} is the control plane's own.", hint="Choose another name.")


def _token_of(row: RowMapping) -> Token:
    times = ("created_at", "expires_at", "revoked_at")
    return Token(**{**row, **{key: _time(row[key]) for key in times}})


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
