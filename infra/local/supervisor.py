"""One supervisord: its file, its start, and a client for it.

Each region is one supervisord; a further one runs the edge and the control plane. It is spoken
to over XML-RPC on loopback with a password, because paths of UNIX
sockets must be shorter than 108 bytes and a state directory need not be.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import shlex
import sys
import xmlrpc.client  # nosec B411: it speaks with our own supervisor
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from infra.local import layout as files
from infra.local.ports import HOST
from runtime.clock import SystemClock, wait_until
from runtime.errors import OperationFailed, TimedOut, Unavailable

USER = "regionctl"
# A dead supervisor refuses at once; only a frozen one, or a very busy machine, takes time.
ANSWER_SECONDS = 3.0
RUNNING_STATES = ("STARTING", "RUNNING", "STOPPING")
# Runs a command that outlives us and says its pid; $0 is where its complaints go.
_LAUNCH = '"$@" >/dev/null 2>"$0" & echo $!'
_ALREADY_STARTED, _NOT_RUNNING, _BAD_NAME, _SPAWN_ERROR = 60, 70, 10, 50


@dataclass(frozen=True)
class Program:
    """Something that a supervisor runs.

    `autostart` is with the supervisor itself, `autorestart` after an unexpected end. `user` is
    another system user to run as (root only). A database has neither of the first two: a primary
    that died must not come back as a primary by itself. With `nice` above 0 it gives way to
    others when processors are short.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None
    user: str | None = None
    autostart: bool = False
    autorestart: bool = True
    start_seconds: int = 1
    stop_signal: str = "TERM"
    stop_wait_seconds: int = 12
    priority: int = 500
    nice: int = 0


@dataclass(frozen=True)
class Info:
    """`state` is the supervisor's word: STOPPED STARTING RUNNING BACKOFF STOPPING EXITED FATAL."""

    name: str
    state: str
    pid: int | None

    @property
    def runs(self) -> bool:
        return self.state in RUNNING_STATES and self.pid is not None


def render(folder: Path, port: int, password: str, programs: Iterable[Program]) -> str:
    """The text of supervisord.conf."""
    lines = [
        "[supervisord]",
        f"logfile={folder}/logs/supervisord.log",
        "logfile_maxbytes=5MB",
        "logfile_backups=1",
        f"pidfile={folder}/supervisord.pid",
        f"childlogdir={folder}/logs",
        "umask=077",
        "minfds=1024",
        "minprocs=64",
        f"identifier={folder.name}",
        "",
        "[inet_http_server]",
        f"port={HOST}:{port}",
        f"username={USER}",
        f"password={password}",
        "",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
    ]
    for program in programs:
        lines += ["", *_section(folder, program)]
    return "\n".join(lines) + "\n"


def _section(folder: Path, program: Program) -> list[str]:
    # `nice` becomes the program: the supervisor's pid is the program's own.
    patience = ("nice", "-n", str(program.nice)) if program.nice else ()
    lines = [
        f"[program:{program.name}]",
        f"command={shlex.join((*patience, *program.command)).replace('%', '%%')}",
        f"autostart={str(program.autostart).lower()}",
        f"autorestart={str(program.autorestart).lower()}",
        f"startsecs={program.start_seconds}",
        "startretries=1000000",
        f"stopsignal={program.stop_signal}",
        f"stopwaitsecs={program.stop_wait_seconds}",
        f"priority={program.priority}",
        "redirect_stderr=true",
        f"stdout_logfile={folder}/logs/{program.name}.log",
        "stdout_logfile_maxbytes=10MB",
        "stdout_logfile_backups=1",
    ]
    if program.directory:
        lines.append(f"directory={program.directory}")
    if program.user:
        lines.append(f"user={program.user}")
    if program.environment:
        pairs = (f'{key}="{value}"' for key, value in sorted(program.environment.items()))
        lines.append("environment=" + ",".join(pairs).replace("%", "%%"))
    return lines


class Supervisor:
    """One supervisord: `folder` holds its file and logs, `port` its XML-RPC."""

    def __init__(self, folder: Path, port: int, password: str, state_dir: Path) -> None:
        self.folder = folder
        self.port = port
        self._password = password
        self._state_dir = state_dir

    @property
    def file(self) -> Path:
        return self.folder / "supervisord.conf"

    def write(self, programs: Iterable[Program]) -> None:
        """Its file says exactly these programs. Takes effect at `start` or `update`."""
        files.make_folder(self.folder / "logs")
        text = render(self.folder, self.port, self._password, programs)
        files.replace_file(self.file, text)

    async def start(self, seconds: float = 10.0, *, own_session: bool = False) -> None:
        """It runs, is nobody's child, and answers. Does nothing when it already does.

        `own_session` is for the one that starts first, from a terminal: the regions join its
        session. Linux shares processors out among sessions before it looks at `nice`
        (sched(7), autogroup), so work that gives way must be in one session with what it
        gives way to.
        """
        if await self.alive():
            return
        log = self.folder / "logs" / "start.log"
        launch = await asyncio.create_subprocess_exec(
            *("sh", "-c", _LAUNCH, str(log)),
            *(sys.executable, "-m", "supervisor.supervisord", "-n", "-s", "-c", str(self.file)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=clean_environment(self._state_dir),
            cwd="/",
            start_new_session=own_session,
            process_group=None if own_session else 0,
        )
        pid = int((await launch.communicate())[0])

        async def decided() -> bool:
            return await self.alive() or not psutil.pid_exists(pid)

        try:
            await wait_until(
                SystemClock(),
                decided,
                what=f"the supervisor of {self.folder.name} to answer",
                seconds=seconds,
            )
        except TimedOut as error:
            error.extra = {
                "log": f"{self.folder}/logs/supervisord.log",
                "lines": self.log_tail(),
            }
            raise
        if not psutil.pid_exists(pid):
            raise OperationFailed(
                f"The supervisor of {self.folder.name} did not start.",
                hint=f"Read {self.folder}/logs/supervisord.log and check port {self.port}.",
                extra={"log": str(self.file), "lines": tail(log, 5) or self.log_tail()},
            )

    async def alive(self) -> bool:
        try:
            return bool(await self.call("supervisor.getState", seconds=ANSWER_SECONDS))
        except Unavailable:
            return False

    def present(self) -> bool:
        """Its process exists: a look at its pid file, for who cannot wait for an answer."""
        try:
            pid = int((self.folder / "supervisord.pid").read_text(encoding="ascii"))
            return str(self.file) in psutil.Process(pid).cmdline()
        except (OSError, ValueError, psutil.Error):
            return False

    async def pid(self) -> int | None:
        """Its process id; None when it does not answer."""
        try:
            return int(await self.call("supervisor.getPID", seconds=ANSWER_SECONDS))
        except Unavailable:
            return None

    async def info(self) -> dict[str, Info]:
        """All its programs. Raises `Unavailable` when it does not answer."""
        rows = await self.call("supervisor.getAllProcessInfo", seconds=ANSWER_SECONDS)
        return {
            row["name"]: Info(row["name"], row["statename"], int(row["pid"]) or None)
            for row in rows
        }

    async def start_program(self, name: str) -> None:
        """Spawned (not yet ready). Does nothing when it runs."""
        await self._tolerant("supervisor.startProcess", name, False, known=_ALREADY_STARTED)

    async def stop_program(self, name: str, *, wait: bool = True, seconds: float = 30.0) -> None:
        """Told to stop, and not started again; gone, when `wait`."""
        await self._tolerant(
            "supervisor.stopProcess", name, wait, known=_NOT_RUNNING, seconds=seconds
        )

    async def update(self) -> None:
        """Programs that its file has and it has not are added; changed ones that do not run are
        renewed; those gone from the file are removed."""
        added, changed, removed = (await self.call("supervisor.reloadConfig"))[0]
        states = await self.info()
        renewed = [name for name in changed if not (name in states and states[name].runs)]
        for name in removed:
            await self.stop_program(name)
        for name in (*renewed, *removed):
            await self.call("supervisor.removeProcessGroup", name)
        for name in (*added, *renewed):
            await self.call("supervisor.addProcessGroup", name)

    async def shutdown(self, seconds: float = 30.0) -> None:
        """It and all that it runs have ended. Does nothing when it does not answer."""
        pid = await self.pid()
        if pid is None:
            return
        with contextlib.suppress(Unavailable):
            # All at once: `shutdown` alone would end one program after another.
            await self.call("supervisor.stopAllProcesses", True, seconds=seconds)
            await self.call("supervisor.shutdown")

        async def gone() -> bool:
            return not psutil.pid_exists(pid)

        what = f"the supervisor of {self.folder.name} to end"
        await wait_until(SystemClock(), gone, what=what, seconds=seconds, every=0.1)

    def log_tail(self, lines: int = 5) -> list[str]:
        return tail(self.folder / "logs" / "supervisord.log", lines)

    async def call(self, method: str, *arguments: Any, seconds: float = 10.0) -> Any:
        """One XML-RPC call.

        Raises `Unavailable` when nobody answers in time, `xmlrpc.client.Fault` when the
        supervisor says no.
        """
        body = xmlrpc.client.dumps(arguments, method).encode()
        try:
            async with asyncio.timeout(seconds):
                answer = await self._post(body)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise Unavailable(
                f"The supervisor of {self.folder.name} does not answer on port {self.port}.",
                hint="regionctl up starts it again.",
                extra={"log": f"{self.folder}/logs/supervisord.log"},
            ) from error
        return xmlrpc.client.loads(answer)[0][0]

    async def _post(self, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            token = base64.b64encode(f"{USER}:{self._password}".encode()).decode()
            head = (
                "POST /RPC2 HTTP/1.0\r\n"
                f"Host: {HOST}\r\nAuthorization: Basic {token}\r\n"
                f"Content-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            await writer.drain()
            raw = await reader.read()
        finally:
            writer.close()
        head_bytes, _, content = raw.partition(b"\r\n\r\n")
        if b" 200 " not in head_bytes.split(b"\r\n", 1)[0]:
            raise ConnectionError(head_bytes[:80].decode(errors="replace") or "no answer")
        return content

    async def _tolerant(
        self, method: str, name: str, wait: bool, *, known: int, seconds: float = 10.0
    ) -> None:
        try:
            await self.call(method, name, wait, seconds=seconds)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == known:
                return
            log = self.folder / "logs" / f"{name}.log"
            raise OperationFailed(
                f"{method.partition('.')[2]} of {name} failed: {fault.faultString}.",
                hint=f"Read {log} and {self.folder}/logs/supervisord.log.",
                extra={"log": str(log), "lines": tail(log, 5) or self.log_tail()},
            ) from fault


def clean_environment(state_dir: Path) -> dict[str, str]:
    """What every process of the platform starts with.

    REGIONCTL_STATE marks it as ours, so that a process left behind can be found.
    """
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(state_dir),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "REGIONCTL_STATE": str(state_dir),
    }


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log (of its last 64 KiB); empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 65536))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []
