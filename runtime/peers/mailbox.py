"""The mail server's stand-in: `python -m runtime.peers.mailbox --smtp-port P --http-port Q
--state FILE`.

It takes mail for everybody by SMTP (8BITMIME, SMTPUTF8) and keeps it: 250 is answered only when
the mail is committed to the file, so a kill -9 of this process loses none that was acknowledged (a
power cut may: one fsync a mail would be most of its cost). A Message-ID that comes again is kept
once.

    GET    /messages?to=&after=&limit=   → [{id, from, to, subject, text, received_at}], oldest
                                           first; `to`: one recipient, `after`: a message's id
    DELETE /messages                     → 204
    POST   /faults {"mode": accept | refuse-temporary | refuse-permanent, "seconds": N, "to"?}
                                         RCPT is answered 451 or 550, to that address or to all
"""

from __future__ import annotations

import argparse
import asyncio
import email
import email.policy
import json
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import uvicorn
from aiosmtpd.smtp import SMTP, Envelope, Session
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

REFUSALS = {
    "refuse-temporary": "451 4.3.0 Not now, try again later",
    "refuse-permanent": "550 5.1.1 This mailbox does not exist",
}
MODES = ("accept", *REFUSALS)
SIZE_LIMIT = 1024 * 1024
PAGE = 1000
TABLES = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, message_id TEXT NOT NULL UNIQUE, sender TEXT NOT NULL,
    recipients TEXT NOT NULL, subject TEXT NOT NULL, text TEXT NOT NULL, received_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS recipients (
    address TEXT NOT NULL, message INTEGER NOT NULL, PRIMARY KEY (address, message)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS faults (
    address TEXT PRIMARY KEY, mode TEXT NOT NULL, until REAL NOT NULL
);
"""


@dataclass(frozen=True)
class Mail:
    message_id: str
    sender: str
    recipients: tuple[str, ...]
    subject: str
    text: str


class Mailbox:
    """All mail, in one SQLite file."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(TABLES)

    def close(self) -> None:
        self._db.close()

    def keep(self, mail: Mail, received: datetime) -> None:
        """`mail` is in the file, once. Raises `sqlite3.Error`."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            made = self._db.execute(
                "INSERT INTO messages (message_id, sender, recipients, subject, text, received_at)"
                " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING id",
                (
                    mail.message_id, mail.sender, ", ".join(mail.recipients), mail.subject,
                    mail.text, received.isoformat(),
                ),
            ).fetchone()  # fmt: skip
            if made:
                rows = [(recipient, made[0]) for recipient in dict.fromkeys(mail.recipients)]
                self._db.executemany("INSERT INTO recipients VALUES (?, ?)", rows)
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def messages(self, to: str | None, after: int, limit: int) -> list[dict[str, Any]]:
        query = "SELECT id, sender, recipients, subject, text, received_at FROM messages"
        if to is None:
            rows = self._db.execute(f"{query} WHERE id > ? ORDER BY id LIMIT ?", (after, limit))
        else:
            rows = self._db.execute(
                f"{query} JOIN recipients ON message = id"
                " WHERE address = ? AND message > ? ORDER BY id LIMIT ?",
                (to, after, limit),
            )
        names = ("id", "from", "to", "subject", "text", "received_at")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def clear(self) -> None:
        self._db.executescript("BEGIN; DELETE FROM messages; DELETE FROM recipients; COMMIT")

    def fault(self, address: str) -> str:
        """The mode that holds for `address` now."""
        row = self._db.execute(
            "SELECT mode FROM faults WHERE address IN ('', ?) AND until > ? "
            "ORDER BY address DESC LIMIT 1",
            (address, time.time()),
        ).fetchone()
        return str(row[0]) if row else "accept"

    def set_fault(self, address: str, mode: str, until: float) -> None:
        self._db.execute("INSERT OR REPLACE INTO faults VALUES (?, ?, ?)", (address, mode, until))


class Conversation:
    """What aiosmtpd asks during an SMTP conversation."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        mode = self._mailbox.fault(address)
        if mode in REFUSALS:
            return REFUSALS[mode]
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        try:
            self._mailbox.keep(read(envelope), datetime.now(UTC))
        except sqlite3.Error:
            return "451 4.3.0 The disk does not take it"
        return "250 2.0.0 Kept"


def read(envelope: Envelope) -> Mail:
    """The mail of `envelope`; a body that cannot be decoded is shown as far as it can."""
    raw = envelope.content or b""
    raw = raw if isinstance(raw, bytes) else raw.encode()
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    try:
        body = message.get_body(("plain",))
        text = str(body.get_content()) if body else ""
    except (LookupError, ValueError, KeyError):
        text = raw.decode(errors="replace")
    return Mail(
        message_id=str(message.get("Message-ID") or uuid.uuid4().hex),
        sender=envelope.mail_from or "",
        recipients=tuple(envelope.rcpt_tos),
        subject=str(message.get("Subject") or ""),
        text=text,
    )


class Http:
    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def live(self, request: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def messages(self, request: Request) -> Response:
        query = request.query_params
        after, limit = (_whole(query.get(name)) for name in ("after", "limit"))
        found = self._mailbox.messages(
            query.get("to") or None, after or 0, min(limit or PAGE, PAGE)
        )
        return JSONResponse(found)

    async def clear(self, request: Request) -> Response:
        self._mailbox.clear()
        return Response(status_code=204)

    async def faults(self, request: Request) -> Response:
        try:
            wish = json.loads(await request.body())
            mode, seconds = str(wish["mode"]), float(wish.get("seconds", 3600))
            address = str(wish.get("to") or "")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise HTTPException(422, "mode and seconds are needed") from error
        if mode not in MODES:
            raise HTTPException(422, f"mode is one of {', '.join(MODES)}")
        self._mailbox.set_fault(address, mode, time.time() + seconds)
        return JSONResponse({"mode": mode, "seconds": seconds, "to": address})


def _whole(text: str | None) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise HTTPException(422, "after and limit are whole numbers")
    return int(text)


def build(state: Path, smtp_port: int, host: str = "127.0.0.1") -> Starlette:
    """The HTTP application; its life is that of the SMTP server too."""
    mailbox = Mailbox(state)
    http = Http(mailbox)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: SMTP(
                Conversation(mailbox),
                data_size_limit=SIZE_LIMIT,
                enable_SMTPUTF8=True,
                hostname="mailbox",
                ident="regionctl mailbox",
                timeout=60,
                loop=loop,
            ),
            host,
            smtp_port,
        )
        yield
        server.close()
        mailbox.close()

    return Starlette(
        routes=[
            Route("/health/live", http.live, methods=["GET"]),
            Route("/messages", http.messages, methods=["GET"]),
            Route("/messages", http.clear, methods=["DELETE"]),
            Route("/faults", http.faults, methods=["POST"]),
        ],
        lifespan=lifespan,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="mailbox", description=__doc__)
    parser.add_argument("--smtp-port", type=int, required=True)
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--state", type=Path, required=True, help="SQLite file")
    given = parser.parse_args()
    uvicorn.run(
        build(given.state, given.smtp_port), host="127.0.0.1", port=given.http_port,
        log_level="warning", access_log=False, timeout_graceful_shutdown=1,
    )  # fmt: skip


if __name__ == "__main__":
    main()
