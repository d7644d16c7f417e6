"""Who may ask the control plane for what: pure rules.

role      may
viewer    read everything, and have anything planned
operator  change everything but what only an admin may
admin     decommission the platform; make and revoke tokens
system    the control plane itself: sentinel, keeper, autoscaler, a drill's own operations; no
          token has it
nobody    whoever has no valid token
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from runtime.errors import Forbidden
from runtime.plain import plain

Role = Literal["viewer", "operator", "admin", "system", "nobody"]

ROLES: tuple[Role, ...] = ("viewer", "operator", "admin")
"""What a token may be given: each may do what those before it may."""

READS = frozenset({"GET", "HEAD", "OPTIONS"})
ADMIN_VERBS = frozenset({"decommission"})
RESERVED_NAMES = frozenset({"root", "sentinel", "keeper", "autoscaler", "platform", "anonymous"})
TARGETS = ("target", "database", "drill", "service", "to", "name", "id", "server", "region")
KEPT_CHARACTERS = 2000


@dataclass(frozen=True)
class Actor:
    """Who asks. `token` is the id of the token that proves it; None for root and the platform."""

    name: str
    role: Role
    token: str | None = None


ROOT = Actor("root", "admin")
PLATFORM = Actor("platform", "system")
ANONYMOUS = Actor("anonymous", "nobody")


@dataclass(frozen=True)
class Asked:
    """One wish, as it is recorded: `action` is a verb, or what a path means."""

    actor: str
    role: Role
    action: str
    target: str = ""
    reason: str = ""

    def about(self, target: str) -> Asked:
        return replace(self, target=target)


def changes(method: str, path: str) -> bool:
    """Whether the request may change anything: everything but a read and a plan."""
    return method not in READS and not (method == "POST" and path.startswith("/v1/plans/"))


def needed(method: str, path: str) -> Role:
    """The least role that may send this request at all; see `needed_for` for what it starts."""
    if not changes(method, path):
        return "viewer"
    return "admin" if (path + "/").startswith("/v1/tokens/") else "operator"


def needed_for(verb: str) -> Role:
    """The least role that may start an operation of this verb, or go on with it."""
    return "admin" if verb in ADMIN_VERBS else "operator"


def check(actor: Actor, least: Role, action: str) -> None:
    """Raises `Forbidden` when `actor` has less than the role `least`."""
    if ROLES.index(actor.role) < ROLES.index(least):
        raise Forbidden(
            f"{actor.name} has the role {actor.role}; {action} needs the role {least}.",
            hint=f"Ask an admin for a token: regionctl token create NAME --role {least}",
        )


def asked(actor: Actor, method: str, path: str, body: Any) -> Asked:
    """What a request that changes something wants, from its path and its body (any JSON).

    A POST of /v1/operations is about the verb in the body; of /v1/failovers/s1/acknowledge it is
    "acknowledge" of "s1", of /v1/reshard/pause "reshard pause".
    """
    document: Mapping[str, Any] = body if isinstance(body, dict) else {}
    action, target = f"{method} {path}", ""
    match (method, *path.removeprefix("/v1/").split("/")):
        case ("POST", "operations"):
            action = legible(document.get("verb")) or action
            target = target_of(document.get("args"))
        case ("POST", "tokens"):
            action, target = "token create", legible(document.get("name"))
        case ("POST", "failovers", database, verb):
            action, target = verb, database
        case ("POST", noun, id, verb):
            action, target = f"{noun.removesuffix('s')} {verb}", id
        case ("POST", noun, verb):
            action, target = f"{noun} {verb}", legible(document.get("region"))
    reason = legible(document.get("reason"))
    return Asked(actor.name, actor.role, legible(action), legible(target), reason)


def target_of(args: Any) -> str:
    """The most telling of an operation's arguments."""
    known: Mapping[str, Any] = args if isinstance(args, dict) else {}
    return next((legible(known[key]) for key in TARGETS if known.get(key) is not None), "")


def legible(value: Any) -> str:
    """Text of bounded length, safe to keep and to show; "" for what is no text or number."""
    if not isinstance(value, str | int | float):
        return ""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return plain(text)[:KEPT_CHARACTERS]
