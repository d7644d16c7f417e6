"""Passwords: Argon2id at the cost that OWASP names, in threads, two at a time.

More at once would take the cores from requests that wait for them, and 19 MiB each.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from runtime.errors import Invalid

MINIMUM = 10
MAXIMUM = 128
AT_ONCE = 2

_hasher = PasswordHasher(memory_cost=19456, time_cost=2, parallelism=1)


def check(password: str, email: str) -> None:
    """Raises `Invalid` for a password that may not be one, without repeating it."""
    try:
        password.encode()
    except UnicodeError as error:
        raise Invalid("The password is not valid Unicode.") from error
    if not MINIMUM <= len(password) <= MAXIMUM:
        raise Invalid(f"A password has {MINIMUM} to {MAXIMUM} characters.")
    if password.strip().lower() == email.strip().lower():
        raise Invalid("The password must not be the e-mail address.")


class Passwords:
    """One a process."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def hashed(self, password: str) -> str:
        async with self._turns:
            return await asyncio.to_thread(_hasher.hash, password)

    async def matches(self, stored: str | None, password: str) -> bool:
        """Whether `stored` is a hash of `password`. None takes as long as any hash does."""
        async with self._turns:
            return await asyncio.to_thread(_verify, stored, password)


def outdated(stored: str) -> bool:
    """Whether the hash was made at another cost than today's."""
    return _hasher.check_needs_rehash(stored)


def _verify(stored: str | None, password: str) -> bool:
    try:
        # An over-long password is nobody's: its length must not buy our time.
        return _hasher.verify(stored or _nobodys(), password[: MAXIMUM + 1]) and bool(stored)
    except (VerificationError, InvalidHashError, UnicodeError):
        return False


@lru_cache(maxsize=1)
def _nobodys() -> str:
    return _hasher.hash("nobody's password")
