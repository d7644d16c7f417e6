"""HTTP of users."""

from __future__ import annotations

import secrets
from functools import partial

import asyncpg
from fastapi import APIRouter, Response

from runtime.context import Background, Context
from runtime.errors import NotFound, Unavailable
from runtime.shards import Done, catalog, of_user
from runtime.users import rules, store
from runtime.users.schemas import NewUser, User
from runtime.wire import (
    IdempotencyKey,
    PositionHeader,
    answer,
    parse_id,
    parse_position,
    placed_at,
)


def service(context: Context) -> tuple[APIRouter, Background]:
    """The routes; nothing runs beside them."""
    return _routes(context), {}


def _routes(context: Context) -> APIRouter:
    routes = APIRouter(prefix="/api/v1/users")

    @routes.post("", status_code=201, response_model=User)
    async def register(body: NewUser, key: IdempotencyKey = None) -> Response:
        done = await create(context, body, key or secrets.token_hex(16))
        headers = placed_at(done, done.value.xid)
        if not done.value.fresh:
            headers["Idempotent-Replay"] = "true"
        return answer(_document(done.value.user), 201, headers)

    @routes.get("/{user_id}", response_model=User)
    async def get(user_id: str, position: PositionHeader = None) -> Response:
        id = parse_id(user_id)
        done = await context.shards.read(
            of_user(id),
            lambda connection, _: store.get(connection, id),
            position=parse_position(position),
        )
        if done.value is None:
            raise NotFound(f"There is no user {user_id}.")
        return answer(_document(done.value), headers=placed_at(done))

    return routes


async def create(context: Context, body: NewUser, key: str) -> Done[store.Created]:
    """Reserve, create, confirm: each may be repeated, by this request or the next."""
    wish, entry = await _reserve(context, body, key)
    mine = entry.key == wish.key
    if mine:
        rules.same_request(entry, wish)
    elif entry.state == "confirmed":
        raise rules.taken(wish)
    user_id = entry.user_id
    done = await context.shards.write(
        of_user(user_id),
        lambda connection, place: store.create(connection, place, user_id, wish),
    )
    if entry.state == "reserved" or not mine or done.value.fresh:
        await context.shards.write(
            catalog, lambda connection, place: store.confirm(connection, place, done.value)
        )
    if done.value.key != wish.key:
        raise rules.taken(wish)
    return done


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


def _document(user: rules.User) -> dict[str, str]:
    return {
        "id": str(user.id),
        "email": user.email,
        "name": user.name,
        "created_at": user.created_at.isoformat(),
    }
