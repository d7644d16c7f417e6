"""Passwords: Argon2id at the cost that OWASP names, in threads, two at a time.

More at once would take the cores from requests that wait for them, and 19 MiB each. Whoever comes
when a second or two of work waits is sent away at once: a flood of logins would otherwise be
worked off long after its clients have left, or asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import ParamSpec, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from runtime.errors import Invalid, TooManyRequests

P = ParamSpec("P")
T = TypeVar("T")

MINIMUM = 10
MAXIMUM = 128
AT_ONCE = 2
# Of 20 to 50 ms each.
WAITING = 60

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
    """One a process. Its methods raise `TooManyRequests` when too many wait already."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def hashed(self, password: str) -> str:
        return await self._in_turn(_hasher.hash, password)

    async def matches(self, stored: str | None, password: str) -> bool:
        """Whether `stored` is a hash of `password`. None takes as long as any hash does."""
        return await self._in_turn(_verify, stored, password)

    async def _in_turn(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._waiting >= WAITING:
            raise TooManyRequests(
                "Too many passwords are being checked just now.",
                hint="Try again in a moment.",
                extra={"retryAfter": 1},
            )
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            return await asyncio.to_thread(work, *args, **kwargs)
        finally:
            self._turns.release()


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
