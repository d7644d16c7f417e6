"""Speaks to the control plane: what it answers as documents, what it refuses as `Problem`s."""

from __future__ import annotations

import asyncio
import json
import ssl
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import httpx

from control_plane import listen
from runtime.errors import Invalid, NotFound, Problem, Refused, Unauthorized, Unavailable

JSON = dict[str, Any]

ANSWER_SECONDS = 60.0
CONNECT_SECONDS = 2.0
SILENCE_SECONDS = 40.0
PATIENCE_SECONDS = 60.0
RETRY_SECONDS = 0.2
FINAL = ("operation-succeeded", "operation-failed", "operation-aborted")


class Client:
    """`async with Client(address, state_dir=...)`: its token and its certificate are in there.

    Of a control plane elsewhere, `token_file` has the token and `ca_file` (PEM) who vouches for its
    certificate; without `ca_file` whom the system trusts. Raises `Refused` for an address to
    which the token would go in the clear, `Unauthorized` without a token.

    Every method raises `Unavailable` when the control plane does not answer, and otherwise the
    `Problem` that it answers with."""

    def __init__(
        self,
        address: str,
        *,
        state_dir: Path | None = None,
        token: str | None = None,
        token_file: Path | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self.address = address
        self._mend = "regionctl up starts it again; customers are served without it."
        if state_dir is None and token_file is not None:
            self._mend = "See that REGIONCTL_SERVER is right, and that the machine can be reached."
        if token is None:
            token = _read_token(state_dir, token_file)
        self._http = httpx.AsyncClient(
            base_url=address,
            headers={"Authorization": f"Bearer {token}"},
            verify=_trust(address, state_dir, ca_file),
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            trust_env=False,
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def status(self) -> JSON:
        return await self._document("GET", "/v1/status")

    async def overview(self) -> JSON:
        """The platform on one page, for dashboards."""
        return await self._document("GET", "/v1/overview")

    async def scaling(self) -> JSON:
        """How many instances each service has in each zone, what they use, and why so many."""
        return await self._document("GET", "/v1/scaling")

    async def slo(self, part: Literal["", "/file"] = "") -> JSON:
        return await self._document("GET", f"/v1/slo{part}")

    async def topology(self) -> JSON:
        return await self._document("GET", "/v1/topology")

    async def shard_map(self) -> JSON:
        return await self._document("GET", "/v1/shard-map")

    async def plan(self, verb: str, args: Mapping[str, Any], reason: str = "") -> JSON:
        """What `verb` would do now, with "digest" and "generation"; nothing is stored."""
        body = {"args": dict(args), "reason": reason}
        return await self._document("POST", f"/v1/plans/{_part(verb)}", body)

    async def start(
        self,
        verb: str,
        args: Mapping[str, Any],
        *,
        reason: str = "",
        idempotency_key: str | None = None,
        expect_generation: int | None = None,
    ) -> JSON:
        """A new operation; with the same key always the same one.

        Refused when the platform's generation (see `plan`) is not `expect_generation`.

        Asked again while the control plane comes back: it may have died before it could answer.
        """
        key = idempotency_key or str(uuid.uuid4())
        body: JSON = {"verb": verb, "args": dict(args), "reason": reason, "idempotencyKey": key}
        if expect_generation is not None:
            body["expectGeneration"] = expect_generation
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while True:
            try:
                return await self._document("POST", "/v1/operations", body)
            except ConnectionLost:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(RETRY_SECONDS)

    async def operations(self, limit: int = 50) -> list[JSON]:
        return await self._list("/v1/operations", {"limit": limit})

    async def operation(self, id: str) -> JSON:
        return await self._document("GET", f"/v1/operations/{_part(id)}")

    async def resume(self, id: str, reason: str = "") -> JSON:
        return await self._document(
            "POST", f"/v1/operations/{_part(id)}/resume", {"reason": reason}
        )

    async def abort(self, id: str, reason: str = "") -> JSON:
        return await self._document("POST", f"/v1/operations/{_part(id)}/abort", {"reason": reason})

    async def drills(self) -> list[JSON]:
        return await self._list("/v1/drills")

    async def drill_history(self, limit: int = 100) -> list[JSON]:
        return await self._list("/v1/drills/history", {"limit": limit})

    async def report(self, id: str) -> JSON:
        return await self._document("GET", f"/v1/reports/{_part(id)}")

    async def dr(self) -> JSON:
        return await self._document("GET", "/v1/dr")

    async def failovers(self, database: str | None = None) -> list[JSON]:
        return await self._list("/v1/failovers", {"database": database} if database else {})

    async def acknowledge(self, database: str, reason: str) -> JSON:
        path = f"/v1/failovers/{_part(database)}/acknowledge"
        return await self._document("POST", path, {"reason": reason})

    async def who_am_i(self) -> JSON:
        """{"name", "role", "token"}"""
        return await self._document("GET", "/v1/whoami")

    async def tokens(self) -> list[JSON]:
        """Oldest first, those too that are good no more."""
        return await self._list("/v1/tokens")

    async def create_token(
        self, name: str, role: str, *, seconds: int | None = None, reason: str = ""
    ) -> JSON:
        """The new token; its text, "token", is told this once."""
        body = {"name": name, "role": role, "lifetimeSeconds": seconds, "reason": reason}
        return await self._document("POST", "/v1/tokens", body)

    async def revoke_token(self, id: str, reason: str = "") -> JSON:
        return await self._document("POST", f"/v1/tokens/{_part(id)}/revoke", {"reason": reason})

    async def audit(
        self, *, operation: str | None = None, actor: str | None = None, limit: int = 50
    ) -> list[JSON]:
        """The last entries of the audit log that fit, oldest first."""
        asked: JSON = {"operation": operation, "actor": actor, "limit": limit}
        parameters = {key: value for key, value in asked.items() if value is not None}
        return await self._list("/v1/audit", parameters)

    async def verify_audit(self) -> JSON:
        """{"entries", "head", "broken": null or {"sequence", "why"}}"""
        return await self._document("GET", "/v1/audit/verify")

    async def event_lag(self, region: str | None = None) -> JSON:
        """{"region", "items": [{"group", "lag", "pending"}], "deadLetters"}"""
        return await self._document("GET", "/v1/event-lag", parameters=_in(region))

    async def dead_letters(self, region: str | None = None) -> JSON:
        """{"region", "items"}; without a region those of the one that serves."""
        return await self._document("GET", "/v1/dead-letters", parameters=_in(region))

    async def replay_letters(self, region: str, ids: Sequence[str], reason: str = "") -> JSON:
        body = {"region": region, "ids": list(ids), "reason": reason}
        return await self._document("POST", "/v1/dead-letters/replay", body)

    async def drop_letters(self, region: str, ids: Sequence[str], reason: str = "") -> JSON:
        body = {"region": region, "ids": list(ids), "reason": reason}
        return await self._document("POST", "/v1/dead-letters/drop", body)

    async def invariants(self) -> list[JSON]:
        """[{"name", "held", "detail"}] of all databases together, now."""
        items: list[JSON] = (await self._document("GET", "/v1/invariants"))["items"]
        return items

    async def reshard(self) -> JSON:
        """{"operation", "verb", "paused", "items": [{"source", "target", "slotsMoved", ...}]}"""
        return await self._document("GET", "/v1/reshard")

    async def pause_reshard(self, reason: str = "") -> JSON:
        return await self._document("POST", "/v1/reshard/pause", {"reason": reason})

    async def resume_reshard(self, reason: str = "") -> JSON:
        return await self._document("POST", "/v1/reshard/resume", {"reason": reason})

    async def backups(self, database: str | None = None) -> list[JSON]:
        """Oldest first."""
        return await self._list("/v1/backups", {"database": database} if database else {})

    async def backup(self, id: str) -> JSON:
        return await self._document("GET", f"/v1/backups/{_part(id)}")

    async def archives(self) -> list[JSON]:
        """How the WAL of each database is being archived."""
        return await self._list("/v1/archives")

    async def restore_points(self) -> list[JSON]:
        return await self._list("/v1/restore-points")

    async def restorable(self, name: str, at: str | None = None) -> JSON:
        """{"database", "id", "at", "backup"}; raises `Refused` when `at` cannot be reached."""
        parameters = {"at": at} if at else {}
        return await self._document("GET", f"/v1/restorable/{_part(name)}", parameters=parameters)

    async def restored(self, id: str) -> JSON:
        return await self._document("GET", f"/v1/restored/{_part(id)}")

    async def logs(self, instances: Sequence[str], lines: int) -> dict[str, list[str]]:
        parameters: JSON = {"instance": list(instances), "lines": lines}
        return await self._document("GET", "/v1/logs", parameters=parameters)

    async def past_events(self, operation: str | None = None, *, limit: int = 50) -> list[JSON]:
        parameters: JSON = {"limit": limit}
        if operation is not None:
            parameters["operation"] = operation
        return await self._list("/v1/events/past", parameters)

    async def events(self, operation: str | None = None, *, after: int = 0) -> AsyncIterator[JSON]:
        """Events after `after` as they happen; those of an operation end when it has ended.

        Raises `Unavailable` when the connection is lost: `follow` connects again.
        """
        path = "/v1/events" if operation is None else f"/v1/operations/{_part(operation)}/events"
        headers = {"Last-Event-ID": str(after), "Accept": "text/event-stream"}
        timeout = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
        try:
            async with self._http.stream("GET", path, headers=headers, timeout=timeout) as answer:
                if answer.is_error:
                    await answer.aread()
                    raise _problem(answer)
                async for line in answer.aiter_lines():
                    if line.startswith("data:"):
                        yield json.loads(line.removeprefix("data:"))
        except httpx.TransportError as error:
            raise self._unavailable(error) from error

    async def follow(self, operation: str, *, after: int = 0) -> AsyncIterator[JSON]:
        """The operation's events to its end, across restarts of the control plane.

        Raises `Unavailable` after a minute without contact.
        """
        loop = asyncio.get_running_loop()
        contact = loop.time()
        while True:
            try:
                async for event in self.events(operation, after=after):
                    contact = loop.time()
                    after = event["sequence"]
                    yield event
                found = await self.operation(operation)
                contact = loop.time()
                if found["state"] in ("succeeded", "failed", "aborted"):
                    return
            except ConnectionLost:
                if loop.time() - contact > PATIENCE_SECONDS:
                    raise
            await asyncio.sleep(RETRY_SECONDS)

    async def _list(self, path: str, parameters: Mapping[str, Any] | None = None) -> list[JSON]:
        found: list[JSON] = (await self._send("GET", path, None, parameters)).json()
        return found

    async def _document(
        self,
        method: str,
        path: str,
        body: JSON | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> JSON:
        found: JSON = (await self._send(method, path, body, parameters)).json()
        return found

    async def _send(
        self, method: str, path: str, body: JSON | None, parameters: Mapping[str, Any] | None
    ) -> httpx.Response:
        try:
            answer = await self._http.request(method, path, json=body, params=parameters)
        except httpx.TransportError as error:
            raise self._unavailable(error) from error
        if answer.is_error:
            raise _problem(answer)
        return answer

    def _unavailable(self, error: Exception) -> ConnectionLost:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return ConnectionLost(
                f"The server at {self.address} cannot prove that it is the control plane: {error}.",
                hint="Set REGIONCTL_CA_FILE to the authority that issued its certificate; one that "
                "has expired is renewed by: regionctl up --tls-cert FILE --tls-key FILE",
                runbook="certificate-expired",
            )
        return ConnectionLost(
            f"The control plane at {self.address} does not answer ({type(error).__name__}).",
            hint=self._mend,
            runbook="control-plane-lost",
        )


class ConnectionLost(Unavailable):
    """Nobody answered; whether the request was carried out is not known."""


def _part(name: str) -> str:
    """As one part of a path. Raises `NotFound` for what no path could end with."""
    if name in ("", ".", "..") or "/" in name:
        raise NotFound(f"Nothing is called {name!r}.")
    return quote(name, safe="")


def _in(region: str | None) -> JSON:
    return {} if region is None else {"region": region}


def _problem(answer: httpx.Response) -> Problem:
    try:
        return Problem.from_document(answer.json())
    except (ValueError, AttributeError):
        return Problem(f"The control plane answered {answer.status_code}: {answer.text[:200]!r}")


def _trust(address: str, state_dir: Path | None, ca_file: Path | None) -> ssl.SSLContext | bool:
    """Whose certificates are good for `address`."""
    parts = urlsplit(address)
    if parts.scheme != "https":
        if not listen.is_loopback(parts.hostname or ""):
            raise Refused(
                f"The token would go to {address} in the clear.", hint="Use https:// there."
            )
        return False
    try:
        pinned = None
        if ca_file is None and state_dir is not None:
            pinned = listen.read(state_dir / "control").trust()
        return pinned or ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise Invalid(
            f"{ca_file} cannot be used: {error}.", hint="It must be a PEM file of certificates."
        ) from error


def _read_token(state_dir: Path | None, token_file: Path | None) -> str:
    if token_file is None and state_dir is None:
        raise Unauthorized(
            "There is no token for this control plane.",
            hint="Put it in a file (regionctl token create) and set REGIONCTL_TOKEN_FILE.",
        )
    path = token_file or Path(state_dir or "") / "control" / "token"
    try:
        if token_file is None and path.is_symlink():
            # A directory from elsewhere could so have any file sent to any server.
            raise Unauthorized(f"{path} is a link.", hint="Set REGIONCTL_TOKEN_FILE to the token.")
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        if token_file is not None:
            raise Unauthorized(f"There is no file {path}.", hint="regionctl token create") from None
        raise Unavailable(f"There is no platform in {state_dir}.", hint="regionctl up") from None
    except PermissionError:
        raise Unauthorized(
            f"{path} belongs to another user.",
            hint="Run as who ran regionctl up, or set REGIONCTL_SERVER and REGIONCTL_TOKEN_FILE.",
        ) from None
    except (OSError, ValueError) as error:
        raise Unauthorized(
            f"{path} is no file with a token: {error}.", hint="regionctl token create"
        ) from error
