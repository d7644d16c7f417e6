"""The mail server, by SMTP: one connection for a batch, repeated and rested as `runtime.outside`.

A mail that was handed over and then repeated has the same Message-ID. What the server refuses for
good (5xx, for a recipient or a text) is that mail's end; anything else that fails may go well
later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as FOLDED
from email.policy import SMTPUTF8
from email.utils import format_datetime
from typing import Literal

import aiosmtplib
from aiosmtplib import (
    SMTPDataError,
    SMTPException,
    SMTPNotSupported,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)
from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import OpenedState
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from runtime import tracing
from runtime.clock import Clock
from runtime.errors import Unavailable
from runtime.notifications.rules import SENDER, Mail
from runtime.settings import Settings
from runtime.telemetry import OUTSIDE

NAME = "mail server"
TIMEOUT_SECONDS = 5.0
ATTEMPTS = 3
THRESHOLD = 5
REST_SECONDS = 2.0
REASON_LIMIT = 300
UNFOLDED = SMTPUTF8.clone(max_line_length=998)


@dataclass(frozen=True)
class Outcome:
    """`waiting`: it is not known to have been taken; send it again later."""

    status: Literal["sent", "failed", "waiting"]
    reason: str | None = None


class _Away(Exception):
    """No conversation came about; the text says why, without secrets."""


class Mailer:
    """A client of the mail server that the settings name."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._user = settings.secrets.get("smtpUser", "")
        # A server that wants a login sends for that address only.
        self._sender = self._user if "@" in self._user else SENDER
        self._breakers = AsyncCircuitBreakerFactory(
            default_threshold=THRESHOLD, default_ttl=REST_SECONDS, exclude=[asyncio.CancelledError]
        )

    async def send(self, mails: Sequence[Mail]) -> list[Outcome]:
        """What became of each of `mails`. Raises `Unavailable` when the server is away."""
        if not mails:
            return []
        retrying = AsyncRetrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential_jitter(multiplier=0.1, max=2.0, jitter=0.2),
            retry=retry_if_exception_type(_Away),
            reraise=True,
        )
        try:
            client: aiosmtplib.SMTP = await retrying(self._guarded)
        except _Away as error:
            raise _unavailable(str(error)) from error
        try:
            return await self._batch(client, mails)
        finally:
            client.close()

    async def _guarded(self) -> aiosmtplib.SMTP:
        breaker = await self._breakers.get_breaker(NAME)
        try:
            async with breaker:
                return await self._connect()
        except OpenedState as error:
            OUTSIDE.labels(NAME, "open").inc()
            # The breaker raises one object again and again, which would keep every frame.
            error.__traceback__ = None
            raise _unavailable("it has failed too often and rests for a moment") from None

    async def _connect(self) -> aiosmtplib.SMTP:
        if self._settings.smtp is None:
            raise _unavailable("no address is set")
        host, port = self._settings.smtp
        client = aiosmtplib.SMTP(
            hostname=host,
            port=port,
            local_hostname="localhost",
            timeout=TIMEOUT_SECONDS,
            use_tls=self._settings.smtp_tls == "tls",
            start_tls=self._settings.smtp_tls == "starttls",
        )
        try:
            await client.connect()
            if self._user:
                await client.login(self._user, self._settings.secrets.get("smtpPassword", ""))
        except (SMTPException, OSError) as error:
            client.close()
            OUTSIDE.labels(NAME, "lost").inc()
            raise _Away(_reason(error)) from error
        return client

    async def _batch(self, client: aiosmtplib.SMTP, mails: Sequence[Mail]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for mail in mails:
            try:
                with tracing.span("send mail", "client", {"peer.service": NAME}):
                    outcome = await self._one(client, mail)
            except (SMTPServerDisconnected, SMTPTimeoutError, OSError) as error:
                OUTSIDE.labels(NAME, "lost").inc()
                left = len(mails) - len(outcomes)
                return outcomes + [Outcome("waiting", _reason(error))] * left
            outcomes.append(outcome)
            OUTSIDE.labels(NAME, outcome.status).inc()
        try:
            await client.quit()
        except (SMTPException, OSError):
            return outcomes
        return outcomes

    async def _one(self, client: aiosmtplib.SMTP, mail: Mail) -> Outcome:
        try:
            message, recipient = self._message(mail)
        except ValueError as error:
            return Outcome("failed", _reason(error))
        try:
            await client.send_message(message, sender=self._sender, recipients=[recipient])
        except SMTPNotSupported as error:
            return Outcome("failed", _reason(error))
        except SMTPRecipientsRefused as error:
            return _judged(error.recipients[0].code, _reason(error.recipients[0]))
        except SMTPDataError as error:
            return _judged(error.code, _reason(error))
        except (SMTPServerDisconnected, SMTPTimeoutError):
            raise
        except SMTPResponseException as error:
            # The sender or the session was refused: no fault of this mail.
            return Outcome("waiting", _reason(error))
        except ValueError as error:
            return Outcome("failed", _reason(error))
        return Outcome("sent")

    def _message(self, mail: Mail) -> tuple[EmailMessage, str]:
        """The message, and its recipient as SMTP wants it. Raises `ValueError`."""
        local, _, domain = mail.to.rpartition("@")
        address = Address(mail.name, username=local, domain=domain)
        # Folding an address that is not ASCII may break it into something that is no header.
        message = EmailMessage(policy=FOLDED if mail.to.isascii() else UNFOLDED)
        message["From"] = self._sender
        message["To"] = address
        message["Subject"] = mail.subject
        message["Date"] = format_datetime(self._clock.now())
        message["Message-ID"] = mail.id
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(mail.text)
        return message, address.addr_spec


def _judged(code: int, reason: str) -> Outcome:
    return Outcome("failed" if 500 <= code < 600 else "waiting", reason)


def _reason(error: Exception) -> str:
    if isinstance(error, SMTPResponseException):
        return f"{error.code} {error.message}"[:REASON_LIMIT]
    return f"{type(error).__name__}: {error}"[:REASON_LIMIT]


def _unavailable(reason: str) -> Unavailable:
    return Unavailable(
        f"The {NAME} cannot be used: {reason}.",
        hint="Mails wait and are sent by themselves; look at the server if this goes on.",
    )
