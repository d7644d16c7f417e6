"""HTTP of users."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from runtime import audit
from runtime.auth.throttle import Throttle
from runtime.context import Background, Context
from runtime.identity import caller
from runtime.passwords import Passwords
from runtime.shards import of_user
from runtime.users import profiles, rules, store
from runtime.users.change import Changes
from runtime.users.register import register
from runtime.users.schemas import NewUser, User, UserChange, UserPage, document
from runtime.wire import (
    PRIVATE,
    SECURED,
    CacheControl,
    IdempotencyKey,
    IfNoneMatch,
    PositionHeader,
    answer,
    cached_at,
    parse_id,
    parse_position,
    placed_at,
    tagged,
)


def service(context: Context) -> tuple[APIRouter, Background]:
    """The routes; nothing runs beside them."""
    hasher = Passwords()
    routes = APIRouter(prefix="/api/v1/users")
    _add_writes(routes, context, hasher)
    _add_reads(routes, context)
    return routes, {}


def _add_writes(routes: APIRouter, context: Context, hasher: Passwords) -> None:
    throttle = Throttle(context.cache, context.clock)
    changes = Changes(context, hasher, throttle)

    @routes.post("", status_code=201, response_model=User)
    async def create(request: Request, body: NewUser, key: IdempotencyKey = None) -> Response:
        origin = audit.origin_of(request)
        name = key or secrets.token_hex(16)
        done = await register(context, hasher, throttle, body, name, origin)
        headers = PRIVATE | placed_at(done, done.value.xid)
        if not done.value.fresh:
            headers["Idempotent-Replay"] = "true"
        return answer(document(done.value.user), 201, headers)

    @routes.patch("/{user_id}", response_model=User, openapi_extra=SECURED)
    async def change(request: Request, user_id: str, body: UserChange) -> Response:
        """A new password or role ends the user's other sessions."""
        who, id = caller(request), parse_id(user_id)
        done = await changes.apply(who, id, body, audit.origin_of(request))
        return answer(document(done.value.user), 200, PRIVATE | placed_at(done, done.value.xid))


def _add_reads(routes: APIRouter, context: Context) -> None:
    @routes.get("/{user_id}", response_model=User, openapi_extra=SECURED)
    async def get(
        request: Request,
        user_id: str,
        position: PositionHeader = None,
        if_none_match: IfNoneMatch = None,
        cache_control: CacheControl = None,
    ) -> Response:
        who, id = caller(request), parse_id(user_id)
        rules.may_see(who, id)
        if position or (cache_control and "no-cache" in cache_control):
            done = await context.shards.read(
                of_user(id),
                lambda connection, _: store.get(connection, id),
                position=parse_position(position),
            )
            entry = profiles.found(done.value) if done.value else None
            place, headers = done.place, placed_at(done)
        else:
            entry, place = await profiles.fetch(context, id)
            headers = cached_at(place)
        if entry is None:
            raise rules.unknown(id)
        tag = f'"{place.epoch}.{entry.version}"'
        return tagged(entry.body, tag, if_none_match, headers | PRIVATE)

    @routes.get("", response_model=UserPage, openapi_extra=SECURED)
    async def page(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        cursor: str | None = None,
    ) -> Response:
        rules.may_list(caller(request))
        after = parse_id(cursor) if cursor else 0
        users = await profiles.page(context, after, limit + 1)
        following = str(users[limit - 1].id) if len(users) > limit else None
        listed = [document(user) for user in users[:limit]]
        return answer({"users": listed, "next": following}, headers=PRIVATE)
