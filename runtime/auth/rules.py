"""Decisions of auth. Pure: time and randomness are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

WINDOW_SECONDS = 900
ACCOUNT_FAILURES = 5
ADDRESS_FAILURES = 50
FIRST_PAUSE_SECONDS = 30
# How long an address from which somebody logged in is known to be theirs.
KNOWN_SECONDS = 30 * 24 * 3600

SESSION = timedelta(days=30)
SESSION_AT_MOST = timedelta(days=90)
REPEAT = timedelta(seconds=60)
SESSIONS_AT_MOST = 50

KEY_AGE = timedelta(days=30)
KEY_LIFE = timedelta(days=31)
KEY_LEAD = timedelta(seconds=60)
# A token lives ten minutes; a process that cannot read the keys signs with an old one a while.
KEY_OVERLAP = timedelta(hours=1)
TOKEN_LIFE = timedelta(seconds=660)


def pause(failures: Sequence[float], free: int, now: float) -> float:
    """How many seconds nobody may try, after attempts that failed at these times.

    The first `free` failures of a window cost nothing; each further one doubles the pause, up to
    the window itself.
    """
    counted = [at for at in failures if now - at < WINDOW_SECONDS]
    if len(counted) < free:
        return 0.0
    length = min(FIRST_PAUSE_SECONDS * 2 ** min(len(counted) - free, 10), WINDOW_SECONDS)
    return float(max(0.0, max(counted) + length - now))


@dataclass(frozen=True)
class Failures:
    """When attempts failed, in seconds.

    `account`: for the account, from addresses that are not known to be its owner's. `address`:
    from this address, for whichever account. `pair`: for the account from this address, which is
    known to be its owner's; None when it is not.
    """

    account: Sequence[float]
    address: Sequence[float]
    pair: Sequence[float] | None = None


def login_pause(failures: Failures, now: float) -> float:
    """How many seconds the next attempt has to wait.

    Where somebody logged in before, only failures of that pair count: strangers who guess keep
    out strangers, and not the owner.
    """
    if failures.pair is not None:
        return pause(failures.pair, ACCOUNT_FAILURES, now)
    return max(
        pause(failures.account, ACCOUNT_FAILURES, now),
        pause(failures.address, ADDRESS_FAILURES, now),
    )


@dataclass(frozen=True)
class Session:
    """A login: the refresh token that is good now, and the rotation that made it."""

    id: int
    user_id: int
    client: str
    token_hash: bytes
    previous_hash: bytes | None
    rotation_key: str | None
    rotated_at: datetime | None
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None


Verdict = Literal["rotate", "repeat", "done", "reuse", "ended"]


def judge(session: Session, shown: bytes, fresh: bytes, key: str | None, now: datetime) -> Verdict:
    """What is to happen when a token of this session is shown to get the token `fresh`.

    Both are hashes; the token shown is one that we made, some time. `rotate`: it is the good one.
    `repeat`: the same request as the last rotation, whose answer was lost: the token that nobody
    received is replaced. `done`: an earlier attempt of this very request did it. `reuse`: it was
    rotated before, so somebody has a copy. `ended`: revoked or expired.
    """
    if session.revoked_at is not None or session.expires_at <= now:
        return "ended"
    if session.token_hash == fresh:
        return "done"
    if session.token_hash == shown:
        return "rotate"
    repeated = (
        key is not None
        and key == session.rotation_key
        and shown == session.previous_hash
        and session.rotated_at is not None
        and now - session.rotated_at <= REPEAT
    )
    return "repeat" if repeated else "reuse"


def session_expiry(created_at: datetime, now: datetime) -> datetime:
    """Thirty days after its last use, ninety after its beginning."""
    return min(now + SESSION, created_at + SESSION_AT_MOST)


@dataclass(frozen=True)
class KeyTimes:
    """A signing key: verified until `expires_at`, signing from `active_from`."""

    kid: str
    created_at: datetime
    active_from: datetime
    expires_at: datetime


def new_key_times(kid: str, keys: Sequence[KeyTimes], now: datetime) -> KeyTimes:
    """A new key signs when everybody knows it; at once, if no other can."""
    active_from = now if signing_key(keys, now) is None else now + KEY_LEAD
    return KeyTimes(kid, now, active_from, active_from + KEY_LIFE)


def signing_key(keys: Sequence[KeyTimes], now: datetime) -> KeyTimes | None:
    """The youngest active key whose tokens will be over before it is."""
    good = [key for key in keys if key.active_from <= now and now + TOKEN_LIFE < key.expires_at]
    return max(good, key=_order, default=None)


def key_is_due(keys: Sequence[KeyTimes], now: datetime) -> bool:
    """Whether a new key is to be made: none can sign, or the youngest is thirty days old."""
    if signing_key(keys, now) is None:
        return True
    return max(key.created_at for key in keys) + KEY_AGE <= now


def retired_keys(keys: Sequence[KeyTimes], now: datetime) -> list[str]:
    """Keys whose last token has expired: a younger one has signed for long enough."""
    settled = [_order(key) for key in keys if key.active_from + KEY_OVERLAP <= now]
    youngest = max(settled, default=None)
    return [
        key.kid
        for key in keys
        if key.expires_at <= now or (youngest is not None and _order(key) < youngest)
    ]


def _order(key: KeyTimes) -> tuple[datetime, str]:
    return key.active_from, key.kid
