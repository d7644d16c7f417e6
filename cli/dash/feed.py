"""Keeps the newest overview, whatever becomes of the control plane.

Asked once a second; while nobody answers, ever less often (with jitter, at most each 15 s), and the
edge is asked directly whether customers are served. The last document lies on disk, so that the
next start has something to show at once. Nothing here ends because of what it meets.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.dash.view import Contact, Probe
from runtime.clock import Clock
from runtime.errors import Problem, Unavailable

JSON = dict[str, Any]

POLL_SECONDS = 1.0
ANSWER_SECONDS = 8.0
LONGEST_SECONDS = 15.0
KEEP_SECONDS = 10.0


@dataclass(frozen=True)
class Sources:
    """Where documents come from: the control plane's overview, and the edge asked directly, which
    is where the last overview says."""

    overview: Callable[[], Awaitable[JSON]]
    probe: Callable[[JSON | None], Awaitable[Probe]]


class Feed:
    """`document` is the newest overview there is; `contact` says how far it can be trusted.
    It came at `received`, in seconds of the monotonic clock.

    `spread` draws a number from 0 to 1: retries of many consoles must not fall together.
    """

    def __init__(
        self,
        sources: Sources,
        clock: Clock,
        kept: Path | None = None,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self.document: JSON | None = None
        self.polls = 0
        self._sources = sources
        self._clock = clock
        self._kept = kept
        self._spread = spread
        self.received: float | None = None
        self._saved = float("-inf")
        self._lost: float | None = None
        self._word, self._why = "", ""
        self._attempts = 0
        self._retry_at = 0.0
        self._probes: tuple[Probe, ...] = ()
        self._wanted = asyncio.Event()

    @property
    def contact(self) -> Contact:
        return self.contact_since(self.received)

    def contact_since(self, received: float | None, *, paused: bool = False) -> Contact:
        """The contact of who still looks at the document that came at `received`."""
        now = self._clock.monotonic()
        return Contact(
            age=None if received is None else max(0.0, now - received),
            paused=paused,
            lost=None if self._lost is None else now - self._lost,
            word=self._word,
            why=self._why,
            attempts=self._attempts,
            retry_in=max(0.0, self._retry_at - now),
            probes=self._probes,
        )

    def load(self) -> None:
        """The document of the last time, with its age, so that the first screen is not empty."""
        if self._kept is None:
            return
        with suppress(OSError, ValueError):
            found = json.loads(self._kept.read_text(encoding="utf-8"))
            age = self._clock.now().timestamp() - self._kept.stat().st_mtime
            if isinstance(found, dict) and found.get("kind") == "Overview":
                self.document = found
                self.received = self._clock.monotonic() - max(0.0, age)

    def hurry(self) -> None:
        """Ask now, not when the pause is over."""
        self._wanted.set()

    async def run(self, changed: Callable[[], None]) -> None:
        """Asks for ever; calls `changed` when contact begins or is lost."""
        while True:
            before = self.contact.stale
            pause = await self.poll()
            if self.contact.stale != before:
                changed()
            await self._rest(pause)

    async def _rest(self, seconds: float) -> None:
        """Until the pause is over or somebody is in a hurry."""
        waits = [
            asyncio.create_task(self._clock.sleep(seconds)),
            asyncio.create_task(self._wanted.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
        self._wanted.clear()

    async def poll(self) -> float:
        """Asks once; the seconds to wait before the next time."""
        self.polls += 1
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                self._accept(await self._sources.overview())
            return POLL_SECONDS
        except TimeoutError:
            self._lose("silent", f"no answer within {ANSWER_SECONDS:.0f} s")
        except (Unavailable, OSError) as error:
            self._lose("unreachable", str(error))
        except (Problem, ValueError, KeyError) as error:
            self._lose("answers with an error", str(error))
        self._probes = (await self._sources.probe(self.document),)
        pause = backoff(self._attempts, self._spread())
        self._retry_at = self._clock.monotonic() + pause
        return pause

    def _accept(self, document: JSON) -> None:
        self.document = document
        self.received = self._clock.monotonic()
        self._lost, self._why, self._attempts, self._probes = None, "", 0, ()
        if self._kept is not None and self.received - self._saved >= KEEP_SECONDS:
            self._saved = self.received
            with suppress(OSError):
                _save(self._kept, document)

    def _lose(self, word: str, why: str) -> None:
        self._attempts += 1
        self._word, self._why = word, why
        if self._lost is None:
            self._lost = self._clock.monotonic()


def backoff(attempts: int, spread: float) -> float:
    """Seconds to wait after `attempts` in vain: 1, 2, 4, 8, 15, less `spread` of a quarter."""
    longest = min(LONGEST_SECONDS, POLL_SECONDS * 2.0 ** min(attempts - 1, 10))
    return longest * (1 - spread / 4)


def _save(path: Path, document: JSON) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_suffix(".new")
    beside.touch(mode=0o600)
    beside.write_text(json.dumps(document), encoding="utf-8")
    beside.replace(path)
