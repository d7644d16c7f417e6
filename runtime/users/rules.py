"""Decisions about users. Pure: time and randomness are given."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from runtime import emails
from runtime.errors import Forbidden, Invalid, NotFound, Refused
from runtime.identity import Caller


@dataclass(frozen=True)
class User:
    id: int
    email: str
    name: str
    created_at: datetime
    role: Literal["user", "admin"] = "user"
    version: int = 1


@dataclass(frozen=True)
class Registration:
    """A wish to be a user. `user_id` is random, and used only if no user has the address."""

    user_id: int
    email: str
    name: str
    key: str
    digest: bytes
    at: datetime


@dataclass(frozen=True)
class Entry:
    """A line of the e-mail directory. Reserved: the user may not exist yet."""

    email: str
    user_id: int
    key: str
    digest: bytes
    state: Literal["reserved", "confirmed"]


@dataclass(frozen=True)
class Change:
    """None leaves a thing as it is."""

    name: str | None = None
    role: Literal["user", "admin"] | None = None
    new_password: bool = False


def registration(email: str, name: str, key: str, random_bits: int, at: datetime) -> Registration:
    """`random_bits` are 63 random bits; the id is never 0.

    The password is no part of the digest: a fast hash of it would help to guess it. Raises
    `Invalid` for what is no e-mail address.
    """
    address = emails.normal(email)
    digest = hashlib.sha256(json.dumps([address, name]).encode()).digest()
    return Registration(random_bits or 1, address, name, key, digest, at)


def same_request(entry: Entry, wish: Registration) -> None:
    """Raises `Invalid` when the key of `entry` was used for something else."""
    if entry.digest != wish.digest:
        raise Invalid(
            "This Idempotency-Key was used for another request.",
            hint="Use a new key for a new request.",
        )


def taken(wish: Registration) -> Refused:
    return Refused(
        f"The e-mail address {wish.email} belongs to another user.",
        hint="Sign in, or register another address.",
    )


def may_see(who: Caller, user_id: int) -> None:
    """Raises `NotFound`, as if there were no such user."""
    if not who.may_act_for(user_id):
        raise unknown(user_id)


def may_change(who: Caller, user_id: int, change: Change) -> None:
    """Raises `NotFound`, `Forbidden` or `Invalid`."""
    may_see(who, user_id)
    if change == Change():
        raise Invalid("Nothing is to be changed.", hint="Give name, password or role.")
    if change.role is not None and who.role != "admin":
        raise Forbidden("Only an admin may change a role.")


def may_list(who: Caller) -> None:
    """Raises `Forbidden`."""
    if who.role == "user":
        raise Forbidden("Only admins and services may list users.")


def unknown(user_id: int) -> NotFound:
    return NotFound(f"There is no user {user_id}.")


def other_password() -> Invalid:
    return Invalid(
        "This Idempotency-Key was used with another password.",
        hint="Use a new key for a new request.",
    )
