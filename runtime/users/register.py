"""A new user: the address reserved, the user made, the address confirmed; each may be repeated."""

from __future__ import annotations

import math
import secrets
from datetime import timedelta
from functools import partial

import asyncpg

from runtime import audit, passwords
from runtime.auth.throttle import Attempt, Throttle
from runtime.context import Context
from runtime.errors import TooManyRequests, Unavailable
from runtime.passwords import Passwords
from runtime.pool import Connection
from runtime.shardmap import Placement
from runtime.shards import Done, catalog, of_user
from runtime.users import rules, store
from runtime.users.schemas import NewUser

# For so long the same request may come many times at once, from those who carry it.
RETRIED = timedelta(seconds=60)


async def register(
    context: Context,
    hasher: Passwords,
    throttle: Throttle,
    body: NewUser,
    key: str,
    origin: audit.Origin,
) -> Done[store.Created]:
    """Reserve, create, confirm: each may be repeated, by this request or the next."""
    password = body.password.get_secret_value()
    passwords.check(password, body.email)
    wish, entry = await _reserve(context, body, key)
    mine = entry.key == wish.key
    if mine:
        rules.same_request(entry, wish)
    elif entry.state == "confirmed":
        raise rules.taken(wish)
    hashed = await hasher.hashed(password)
    work = partial(store.create, user_id=entry.user_id, wish=wish, password_hash=hashed)
    done = await context.shards.write(of_user(entry.user_id), work)
    if entry.state == "reserved" or not mine or done.value.fresh:
        await _confirm(context, done.value, origin)
    if done.value.key != wish.key:
        raise rules.taken(wish)
    stored = done.value.password_hash
    if stored == hashed:
        return done
    attempt = None
    if done.value.user.created_at < context.clock.now() - RETRIED:
        attempt = await _attempt(throttle, wish.email, origin)
    if not await hasher.matches(stored, password):
        raise rules.other_password()
    if attempt:
        await throttle.succeeded(attempt)
    return done


async def _attempt(throttle: Throttle, email: str, origin: audit.Origin) -> Attempt:
    """Whoever guessed an old key may guess the password no more often than at a login."""
    attempt = await throttle.begin(email, origin.address)
    if attempt.wait:
        raise TooManyRequests(
            "Too many wrong passwords.",
            hint="Wait, then try again.",
            extra={"retryAfter": math.ceil(attempt.wait)},
        )
    return attempt


async def _confirm(context: Context, created: store.Created, origin: audit.Origin) -> None:
    event = audit.Event("user.register", "allowed", f"user:{created.user.id}", origin)

    async def work(connection: Connection, place: Placement) -> None:
        await store.confirm(connection, place, created)
        await audit.record(connection, place, event)

    await context.shards.write(catalog, work)


async def _reserve(
    context: Context, body: NewUser, key: str
) -> tuple[rules.Registration, rules.Entry]:
    for _ in range(5):
        wish = rules.registration(
            body.email, body.name, key, secrets.randbits(63), context.clock.now()
        )
        try:
            done = await context.shards.write(catalog, partial(store.reserve, wish=wish))
        except asyncpg.UniqueViolationError:
            continue
        return wish, done.value
    raise Unavailable("No free user id was found.", hint="Try again.")
