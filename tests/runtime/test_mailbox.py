"""The mailbox keeps what it acknowledged, once, and refuses when told to."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

import aiosmtplib
import httpx
import pytest

from runtime.clock import SystemClock, wait_until
from tests.ports import free_port
from tests.runtime.servers import answers


@dataclass
class MailboxServer:
    """The stand-in as a process of its own."""

    state: Path
    smtp: int = field(default_factory=free_port)
    http: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self.process = subprocess.Popen(  # noqa: ASYNC220
            [
                sys.executable, "-m", "runtime.peers.mailbox", "--smtp-port", str(self.smtp),
                "--http-port", str(self.http), "--state", str(self.state),
            ]
        )  # fmt: skip

        async def up() -> bool:
            return answers(self.smtp) and answers(self.http)

        await wait_until(SystemClock(), up, what="the mailbox", seconds=30)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(40)

    async def messages(self, **query: Any) -> list[dict[str, Any]]:
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as client:
            answer = await client.get("/messages", params=query)
            assert answer.status_code == 200, answer.text
            return list(answer.json())

    async def fault(self, mode: str, seconds: float = 60, to: str = "") -> None:
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as client:
            wish = {"mode": mode, "seconds": seconds, "to": to}
            assert (await client.post("/faults", json=wish)).status_code == 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}"


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[MailboxServer]:
    server = MailboxServer(tmp_path / "mail.db")
    yield server
    server.stop()


def mail(number: int, to: str = "ada@example.org", text: str = "Hello") -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    message["From"] = "shop@example.org"
    message["To"] = to
    message["Subject"] = f"Mail {number} für dich"
    message["Message-ID"] = f"<{number}@example.org>"
    message.set_content(text)
    return message


async def send(server: MailboxServer, message: EmailMessage) -> None:
    await aiosmtplib.send(message, hostname="127.0.0.1", port=server.smtp, start_tls=False)


@pytest.mark.process
async def test_a_mail_is_kept_once_and_survives_a_kill(mailbox: MailboxServer) -> None:
    await mailbox.start()
    for number in (1, 2, 1):
        await send(mailbox, mail(number, text="Grüße\n.\n"))
    await send(mailbox, mail(3, to="jörg@example.org"))
    mailbox.stop(signal.SIGKILL)
    await mailbox.start()
    await send(mailbox, mail(2))
    found = await mailbox.messages()
    assert [each["subject"] for each in found] == [f"Mail {n} für dich" for n in (1, 2, 3)]
    assert found[0]["text"].splitlines() == ["Grüße", "."]
    assert found[0]["from"] == "shop@example.org"
    assert await mailbox.messages(after=found[1]["id"]) == found[2:]
    assert await mailbox.messages(to="jörg@example.org") == found[2:]
    async with httpx.AsyncClient(base_url=mailbox.url, trust_env=False) as client:
        assert (await client.get("/messages", params={"after": "x"})).status_code == 422
        assert (await client.post("/faults", content=b"[]")).status_code == 422
        assert (await client.delete("/messages")).status_code == 204
    assert await mailbox.messages() == []


@pytest.mark.process
async def test_it_refuses_everybody_or_one_address_for_a_time(mailbox: MailboxServer) -> None:
    await mailbox.start()
    for mode, code in (("refuse-temporary", 451), ("refuse-permanent", 550)):
        await mailbox.fault(mode)
        with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as refused:
            await send(mailbox, mail(1))
        assert refused.value.recipients[0].code == code
    await mailbox.fault("accept")
    await mailbox.fault("refuse-permanent", to="eve@example.org")
    await send(mailbox, mail(1))
    with pytest.raises(aiosmtplib.SMTPRecipientsRefused):
        await send(mailbox, mail(2, to="eve@example.org"))
    await mailbox.fault("refuse-permanent", seconds=0, to="eve@example.org")
    await send(mailbox, mail(2, to="eve@example.org"))
    assert len(await mailbox.messages()) == 2
