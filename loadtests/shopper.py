"""Sends the requests of a journey with Locust's fast client, and measures them.

A request is meant to start when the one before has ended (the first: when its arrival is due), is
cut after the plan's timeout or at the run's end, and counts with the time that it took however it
ended. Must only be
imported by a process that runs Locust: gevent changes the interpreter.
"""

from __future__ import annotations

import base64
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gevent
from locust.contrib.fasthttp import FastHttpSession

from loadtests.access import RENEW_SHARE, RETRY_SECONDS, TOKEN_PATH, Client
from loadtests.journeys import Answer, Check, Failed
from loadtests.recorder import ERROR, LIMITED, OK, Recorder, Sample

JSON = dict[str, Any]
TOO_MANY = 429
# What was under way when the run was ended: nobody knows how long it would have taken.
CUT_OFF = "cut off"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}

log = logging.getLogger(__name__)


class Guest:
    """A `journeys.Shopper`: one visit, begun `intended` seconds after the run's start, by `now`."""

    def __init__(
        self,
        session: FastHttpSession,
        recorder: Recorder,
        access: Access,
        now: Callable[[], float],
        journey: str,
        intended: float,
    ) -> None:
        self._session = session
        self._recorder = recorder
        self._access = access
        self._now = now
        self._journey = journey
        self._arrived = intended
        self._next = intended

    def ask(
        self,
        endpoint: str,
        path: str,
        *,
        method: str = "GET",
        body: JSON | None = None,
        headers: Mapping[str, str] | None = None,
        expect: tuple[int, ...] = (200,),
        check: Check | None = None,
    ) -> Answer:
        intended, start = self._next, self._now()
        try:
            response, kind = self._send(method, path, endpoint, body, headers)
        except gevent.GreenletExit:
            cut = Sample(endpoint, self._journey, intended, start, self._now(), ERROR, CUT_OFF)
            self._recorder.request(cut)
            raise
        end = self._now()
        outcome, answer = ERROR, None
        if response is not None:
            outcome, kind = judge(response, expect)
        if outcome == OK:
            answer, kind = _read(response, check)
            outcome = ERROR if kind else OK
        self._next = end
        sample = Sample(endpoint, self._journey, intended, start, end, outcome, kind)
        self._recorder.request(sample)
        if response is not None:
            _tell_locust(response, (end - intended) * 1000, kind)
        if answer is None:
            raise Failed
        return answer

    def _send(
        self,
        method: str,
        path: str,
        endpoint: str,
        body: JSON | None,
        headers: Mapping[str, str] | None,
    ) -> tuple[Any, str]:
        """Locust's response; None and why there is none, should the client not have caught it."""
        try:
            with gevent.Timeout(self._recorder.plan.timeout):
                response = self._session.request(
                    method,
                    path,
                    name=endpoint,
                    json=body,
                    headers={**self._access.headers, **(headers or {})},
                    catch_response=True,
                    allow_redirects=False,
                )
        except (gevent.Timeout, Exception) as error:
            return None, failure(error)
        return response, ""

    def pause(self, seconds: float) -> None:
        self._next += seconds
        gevent.sleep(max(self._next - self._now(), 0.0))

    def waited(self) -> float:
        return self._now() - self._arrived


def _tell_locust(response: Any, milliseconds: float, kind: str) -> None:
    """Its own statistics are to show the same as ours."""
    with response:
        response.request_meta["response_time"] = milliseconds
        if kind:
            response.failure(kind)
        else:
            response.success()


def judge(response: Any, expect: tuple[int, ...]) -> tuple[str, str]:
    """(outcome, what was wrong) by status or failure alone."""
    status = response.status_code
    if status in expect:
        return OK, ""
    if status == TOO_MANY:
        return LIMITED, "http 429"
    if status:
        return ERROR, f"http {status}"
    return ERROR, failure(getattr(response, "error", None))


def failure(error: BaseException | None) -> str:
    """A word for why there was no answer."""
    error = getattr(error, "original", None) or error
    match error:
        case gevent.Timeout() | TimeoutError():
            return "timeout"
        case ConnectionRefusedError():
            return "refused"
        case ssl.SSLError():
            return "tls"
        case OSError() if error.errno is None or isinstance(error, ConnectionError):
            return "reset"
        case OSError():
            return f"no connection: {error.strerror or error.errno}"
        case None:
            return "no answer"
        case _:
            return "reset"


def _read(response: Any, check: Check | None) -> tuple[Answer | None, str]:
    """The answer; None and what is wrong with it, when it is not what was asked for."""
    try:
        document = response.json()
        if check is not None and not check(document):
            return None, "wrong answer"
    except (ValueError, LookupError, TypeError, AttributeError):
        return None, "wrong answer"
    return Answer(
        document, {key.lower(): str(value) for key, value in response.headers.items()}
    ), ""


class Access:
    """The token of the load program's own OAuth client, renewed beside the load."""

    def __init__(self, session: FastHttpSession, file: Path | None) -> None:
        self._session = session
        self._client = Client.read_if(file)
        self.headers: dict[str, str] = {}

    def open(self) -> None:
        """With the first token. Raises `OSError`, `ValueError`, `LookupError` or what the HTTP
        client raises when there is none."""
        if self._client is not None:
            gevent.spawn(self._keep, self._fetch(self._client), self._client)

    def _keep(self, seconds: float, client: Client) -> None:
        """A renewal that fails leaves the token as it is, and is tried again."""
        while True:
            gevent.sleep(seconds)
            try:
                seconds = self._fetch(client)
            except Exception as error:
                log.warning("no new token: %r", error)
                seconds = RETRY_SECONDS

    def _fetch(self, client: Client) -> float:
        """Seconds after which to fetch the next."""
        pair = base64.b64encode(f"{client.id}:{client.secret}".encode()).decode()
        url = client.token_url or f"{self._session.base_url}{TOKEN_PATH}"
        answer = self._session.client.urlopen(
            url,
            method="POST",
            payload="grant_type=client_credentials",
            headers={"Authorization": f"Basic {pair}", **FORM},
        )
        found = answer.json()
        self.headers = {"Authorization": f"Bearer {found['access_token']}"}
        return float(found.get("expires_in", 60.0)) * RENEW_SHARE


def session(url: str, ca: Path | None, timeout: float, width: int, events: Any) -> FastHttpSession:
    """At most `width` connections to `url`, which trust `ca` alone (none: the system's)."""

    def trust(cafile: str | None = None) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(ca) if ca else cafile)

    return FastHttpSession(
        base_url=url.rstrip("/"),
        request_event=events.request,
        user=None,
        insecure=False,
        ssl_context_factory=trust,
        concurrency=width,
        network_timeout=timeout,
        connection_timeout=timeout,
        max_retries=0,
    )


def monotonic_since(begin: float) -> Callable[[], float]:
    return lambda: time.monotonic() - begin
