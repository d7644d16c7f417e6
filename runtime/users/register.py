"""A new user: the address reserved, the user made, the address confirmed; each may be repeated."""

from __future__ import annotations

import secrets
from functools import partial

import asyncpg

from runtime import audit, passwords
from runtime.context import Context
from runtime.errors import Unavailable
from runtime.passwords import Passwords
from runtime.pool import Connection
from runtime.shardmap import Placement
from runtime.shards import Done, catalog, of_user
from runtime.users import rules, store
from runtime.users.schemas import NewUser


async def register(
    context: Context, hasher: Passwords, body: NewUser, key: str, origin: audit.Origin
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
    if stored != hashed and not await hasher.matches(stored, password):
        raise rules.other_password()
    return done


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
