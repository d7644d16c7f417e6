"""Decisions about logins, sessions, signing keys, addresses and passwords, without any server."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey

from runtime import emails, passwords
from runtime.auth import rules
from runtime.auth.sealing import fernet, seal, unseal
from runtime.errors import Invalid, TooManyRequests, Unavailable

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SESSION = rules.Session(
    id=1,
    user_id=2,
    client="public",
    token_hash=b"good",
    previous_hash=b"old",
    rotation_key="key",
    rotated_at=NOW,
    created_at=NOW - timedelta(days=1),
    expires_at=NOW + timedelta(days=29),
)
TIMES = st.lists(st.floats(0, 2000), max_size=20)


@given(TIMES, st.floats(0, 2000))
def test_each_further_failure_makes_the_pause_no_shorter_and_it_ends_with_the_window(
    failures: list[float], now: float
) -> None:
    past = [at for at in failures if at <= now]
    pause = rules.pause(past, 5, now)
    assert 0 <= pause <= rules.WINDOW_SECONDS
    assert rules.pause([*past, now], 5, now) >= pause
    assert rules.pause(past, 5, now + rules.WINDOW_SECONDS) == 0
    if len(past) < 5:
        assert pause == 0


@given(TIMES, TIMES, TIMES, TIMES, st.floats(0, 2000))
def test_where_somebody_logged_in_before_no_failure_of_others_counts(
    account: list[float],
    address: list[float],
    pair: list[float],
    others: list[float],
    now: float,
) -> None:
    known = rules.Failures(account, address, pair)
    assert rules.login_pause(known, now) == rules.pause(pair, rules.ACCOUNT_FAILURES, now)
    attacked = rules.Failures([*account, *others], [*address, *others], pair)
    assert rules.login_pause(attacked, now) == rules.login_pause(known, now)
    stranger = rules.login_pause(rules.Failures(account, address), now)
    assert stranger >= rules.pause(account, rules.ACCOUNT_FAILURES, now)
    assert stranger >= rules.pause(address, rules.ADDRESS_FAILURES, now)


def test_the_fifth_failure_costs_half_a_minute_and_the_sixth_a_minute() -> None:
    assert rules.pause([100.0] * 4, 5, 100.0) == 0
    assert rules.pause([100.0] * 5, 5, 100.0) == 30
    assert rules.pause([100.0] * 6, 5, 100.0) == 60
    assert rules.pause([100.0] * 99, 5, 100.0) == rules.WINDOW_SECONDS


@pytest.mark.parametrize(
    ("shown", "key", "seconds", "verdict"),
    [
        (b"good", None, 0, "rotate"),
        (b"good", "key", 9999, "rotate"),
        (b"old", "key", 60, "repeat"),
        (b"old", "key", 61, "reuse"),
        (b"old", "other", 1, "reuse"),
        (b"old", None, 1, "reuse"),
        (b"ancient", "key", 1, "reuse"),
        (b"good", None, 30 * 86400, "ended"),
    ],
)
def test_a_refresh_token_is_judged_by_what_became_of_it(
    shown: bytes, key: str | None, seconds: int, verdict: str
) -> None:
    now = NOW + timedelta(seconds=seconds)
    assert rules.judge(SESSION, shown, b"fresh", key, now) == verdict
    revoked = replace(SESSION, revoked_at=NOW)
    assert rules.judge(revoked, shown, b"fresh", key, now) == "ended"


def test_an_attempt_that_was_made_before_is_recognised_and_no_key_matches_no_key() -> None:
    assert rules.judge(SESSION, b"old", b"good", None, NOW) == "done"
    keyless = replace(SESSION, rotation_key=None)
    assert rules.judge(keyless, b"old", b"fresh", None, NOW) == "reuse"


def test_a_session_lasts_thirty_days_from_its_last_use_and_ninety_at_most() -> None:
    assert rules.session_expiry(NOW, NOW) == NOW + timedelta(days=30)
    late = NOW + timedelta(days=80)
    assert rules.session_expiry(NOW, late) == NOW + timedelta(days=90)


@given(st.lists(st.tuples(st.integers(0, 40 * 86400), st.booleans()), max_size=30))
def test_over_any_time_some_key_signs_no_token_outlives_its_key_and_none_signs_unannounced(
    steps: list[tuple[int, bool]],
) -> None:
    """Each step: time goes by, then a process looks (and an admin may rotate)."""
    keys: list[rules.KeyTimes] = []
    now = NOW
    for number, (seconds, rotate) in enumerate(steps):
        now += timedelta(seconds=seconds)
        could_sign = rules.signing_key(keys, now) is not None
        if rotate or rules.key_is_due(keys, now):
            made = rules.new_key_times(f"k{number:02}", keys, now)
            assert not could_sign or made.active_from == now + rules.KEY_LEAD
            keys.append(made)
        signs = rules.signing_key(keys, now)
        assert signs is not None
        assert signs.expires_at > now + timedelta(seconds=630)
        gone = rules.retired_keys(keys, now)
        assert signs.kid not in gone
        for key in keys:
            if key.kid in gone and key.expires_at > now:
                later = min(k.active_from for k in keys if k.active_from > key.active_from
                            or (k.active_from == key.active_from and k.kid > key.kid))  # fmt: skip
                assert later + timedelta(seconds=660) < now
        keys = [key for key in keys if key.kid not in gone]


def test_a_key_is_replaced_after_thirty_days_and_kept_until_its_tokens_are_over() -> None:
    first = rules.new_key_times("a", [], NOW)
    assert first.active_from == NOW
    month = NOW + timedelta(days=30)
    assert not rules.key_is_due([first], month - timedelta(seconds=1))
    assert rules.key_is_due([first], month)
    second = rules.new_key_times("b", [first], month)
    both = [first, second]
    assert not rules.key_is_due(both, month)
    assert rules.signing_key(both, month + timedelta(seconds=59)) == first
    assert rules.signing_key(both, month + timedelta(seconds=60)) == second
    assert rules.retired_keys(both, second.active_from + timedelta(minutes=59)) == []
    assert rules.retired_keys(both, second.active_from + timedelta(minutes=60)) == ["a"]


def test_a_sealed_key_is_opened_by_its_secret_only() -> None:
    key = ECKey.generate_key("P-256", {"kid": "k"})
    sealed = seal("secret", key)
    assert unseal("secret", sealed).as_dict(private=True) == key.as_dict(private=True)
    with pytest.raises(Unavailable, match="another tokenKey"):
        unseal("other", sealed)
    with pytest.raises(Unavailable, match="not set"):
        fernet("", "refresh tokens")


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        (" Ada@Example.ORG ", "ada@example.org"),
        ("JO\u0308RG@B\u00fccher.example", "j\u00f6rg@xn--bcher-kva.example"),
        ("a@\u4f8b\u3048.\u30c6\u30b9\u30c8", "a@xn--r8jz45g.xn--zckzah"),
        ("\u7528\u6237@example.org", "\u7528\u6237@example.org"),
        ("load_1@host_1.test", "load_1@host_1.test"),
        ("a@localhost", "a@localhost"),
    ],
)
def test_an_address_has_one_spelling(written: str, normal: str) -> None:
    assert emails.normal(written) == normal


@pytest.mark.parametrize(
    "text",
    ["", "a", "@", "a@", "@b", "a b@c", "a@b..c", "a@.b", "a@b c", "a\x00@b", "a@\u00fc..x",
     "a@" + "\u00fc" * 80 + ".x", "x" * 65 + "@b", "a@" + "b" * 260, "\ud800@b", "a@\ud800\u00fc",
     "a@b@c", "a@b>", "a@b>,<c", "a@b,c", "a@b;c", "a@b:c", "a@b(c", "a@[127.0.0.1]",
     "a\u202eb@c", "a\u200bb@c", "\ufeffa@b"],
)  # fmt: skip
def test_what_is_no_address_is_invalid(text: str) -> None:
    with pytest.raises(Invalid):
        emails.normal(text)


@given(st.text(max_size=70), st.text(max_size=70))
def test_the_normal_form_of_a_normal_form_is_itself(local: str, domain: str) -> None:
    try:
        normal = emails.normal(f"{local}@{domain}")
    except Invalid:
        return
    assert emails.normal(normal) == normal


@pytest.mark.parametrize("password", ["short", "x" * 129, "ada@example.org ", "\ud800" * 12])
def test_a_bad_password_is_refused_without_repeating_it(password: str) -> None:
    with pytest.raises(Invalid) as error:
        passwords.check(password, "ADA@example.org")
    assert password not in error.value.detail


async def test_passwords_match_their_own_hash_only_and_nobodys_matches_none() -> None:
    hasher = passwords.Passwords()
    stored = await hasher.hashed("pässwörter 🔑")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await hasher.matches(stored, "pässwörter 🔑")
    assert not await hasher.matches(stored, "pässwörter")
    for nothing in (None, "", "garbage"):
        assert not await hasher.matches(nothing, "nobody's password")
    assert not passwords.outdated(stored)
    assert passwords.outdated(stored.replace("t=2", "t=1"))


async def test_who_comes_when_too_many_passwords_wait_is_sent_away_at_once() -> None:
    hasher = passwords.Passwords()
    stored = await hasher.hashed("correct horse battery")
    waiting = [asyncio.create_task(hasher.matches(stored, "x")) for _ in range(passwords.WAITING)]
    more = [asyncio.create_task(hasher.matches(stored, "x")) for _ in range(40)]
    await asyncio.wait({more[-1]})
    refused = [task for task in more if task.done()]
    assert len(refused) == 40 - passwords.AT_ONCE
    assert all(isinstance(task.exception(), TooManyRequests) for task in refused)
    for task in waiting + more:
        task.cancel()
    await asyncio.gather(*waiting, *more, return_exceptions=True)
    assert await hasher.matches(stored, "correct horse battery")
