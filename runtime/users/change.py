"""A change of a user: of the name, of the password by who knows the current one, of the role."""

from __future__ import annotations

import math
from functools import partial

from runtime import audit, passwords
from runtime.auth.throttle import Throttle
from runtime.context import Context
from runtime.errors import Forbidden, Invalid, Problem, Refused, TooManyRequests
from runtime.identity import Caller
from runtime.passwords import Passwords
from runtime.shards import Done, of_user
from runtime.users import profiles, rules, store
from runtime.users.schemas import UserChange

Hashes = tuple[str, str]


class Changes:
    def __init__(self, context: Context, hasher: Passwords, throttle: Throttle) -> None:
        self._context = context
        self._hasher = hasher
        self._throttle = throttle

    async def apply(
        self, who: Caller, user_id: int, body: UserChange, origin: audit.Origin
    ) -> Done[store.Changed]:
        """The user as it is now. Sending the same again, also the same passwords, succeeds.

        Raises `NotFound`, `Forbidden`, `Invalid`, `Refused` or `TooManyRequests`.
        """
        wish = rules.Change(body.name, body.role, body.password is not None)
        try:
            rules.may_change(who, user_id, wish)
        except Forbidden:
            await self._audit("user.role", "denied", user_id, origin)
            raise
        before = await self._user(user_id)
        hashes = await self._hashes(before, body, origin) if wish.new_password else None
        work = partial(
            store.change,
            user_id=user_id,
            wish=wish,
            hashes=hashes,
            but=who.session if who.user_id == user_id and body.role is None else None,
        )
        changing = profiles.Changing(self._context, user_id)
        await changing.begin()
        done = await self._context.shards.write(of_user(user_id), work)
        changed = done.value
        await changing.end(done.place, changed.user if changed else None)
        if changed is None:
            raise Refused("The password was changed by another request meanwhile.")
        await self._record(before, wish, changed, origin)
        return Done(changed, done.place, done.endpoint)

    async def _user(self, user_id: int) -> rules.User:
        """From the primary."""
        done = await self._context.shards.read(
            of_user(user_id), lambda connection, _: store.get(connection, user_id)
        )
        if done.value is None:
            raise rules.unknown(user_id)
        return done.value

    async def _hashes(self, user: rules.User, body: UserChange, origin: audit.Origin) -> Hashes:
        """Of the new password and of the current one, which is known to be right."""
        if body.password is None or body.current_password is None:
            raise Invalid("A new password needs the current_password too.")
        new = body.password.get_secret_value()
        current = body.current_password.get_secret_value()
        passwords.check(new, user.email)
        attempt = await self._throttle.begin(user.email, origin.address)
        if attempt.wait:
            raise TooManyRequests(
                "Too many wrong passwords.",
                hint="Wait, then try again.",
                extra={"retryAfter": math.ceil(attempt.wait)},
            )
        try:
            done = await self._context.shards.read(
                of_user(user.id), lambda connection, _: store.password_hash(connection, user.id)
            )
            stored = done.value
            right = await self._hasher.matches(stored, current)
        except Problem:
            await self._throttle.withdrawn(attempt)
            raise
        # The same request again: its first answer was lost.
        if not stored or not (right or await self._hasher.matches(stored, new)):
            await self._audit("user.password", "denied", user.id, origin)
            raise Forbidden("The current password is wrong.")
        await self._throttle.succeeded(attempt)
        return (await self._hasher.hashed(new) if right else stored), stored

    async def _record(
        self, before: rules.User, wish: rules.Change, changed: store.Changed, origin: audit.Origin
    ) -> None:
        """Ends the access tokens of the sessions that are over, too."""
        user, ended = changed.user, changed.ended
        subject = f"user:{user.id}"
        if wish.new_password:
            detail = {"sessions": len(ended)}
            event = audit.Event("user.password", "allowed", subject, origin, detail)
            await audit.write(self._context.shards, event, ended)
        if wish.role:
            roles = {"role": user.role, "before": before.role}
            event = audit.Event("user.role", "allowed", subject, origin, roles)
            await audit.write(self._context.shards, event, ended)

    async def _audit(
        self, action: str, outcome: audit.Outcome, user_id: int, origin: audit.Origin
    ) -> None:
        event = audit.Event(action, outcome, f"user:{user_id}", origin)
        await audit.write(self._context.shards, event)
