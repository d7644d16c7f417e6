"""Decisions about users. Pure: time and randomness are given."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from runtime.errors import Invalid, Refused


@dataclass(frozen=True)
class User:
    id: int
    email: str
    name: str
    created_at: datetime


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


def normal_email(email: str) -> str:
    """One spelling an address: lower case."""
    return email.strip().lower()


def registration(email: str, name: str, key: str, random_bits: int, at: datetime) -> Registration:
    """`random_bits` are 63 random bits; the id is never 0."""
    address = normal_email(email)
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
