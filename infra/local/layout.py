"""The state directory: what lies where, who owns it, and the secrets made once.

    state.json topology.yaml lock secrets.json      this platform, its secrets (0600)
    instances.json                                  services with more instances than the least
    ca/ control/ drills/ salvage/                   local CA, control plane, evidence, saved rows
    global/                                         supervisor of the edge and the control plane
    regions/R/{supervisord.conf,etc,data,logs,run}  one region: its supervisor and everything in it
    pgsql/                                          PostgreSQL's programs, when started as root

Started as root, PostgreSQL runs as an unprivileged user, so the directories down to its data and
its programs may be passed through (0711) while every file that matters is 0600 or lies in a
directory of 0700.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import json
import os
import pwd
import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runtime.errors import Invalid, NotFound, OperationFailed, Refused
from runtime.migrations.roles import ROLES

FORMAT = 1
_SAFE_PATH = re.compile(r"[\w./@+:,=~-]+")


@dataclass(frozen=True)
class State:
    """state.json: which platform lives here. `ownerUid` is the user who may touch it."""

    format: int
    topology: str
    ownerUid: int
    portOffset: int
    createdAt: str
    postgresBin: str | None = None


@dataclass(frozen=True)
class Secrets:
    """Passwords and keys.

    PostgreSQL's superuser, its role for replication, and its role for each service (`authDatabase`
    and so on); Valkey, the same for all services; the supervisors' XML-RPC; `tokenKey` (Fernet)
    seals the signing keys of tokens; `gatewayKey` and `webhookSecret` are shared with the payment
    gateway; `objectsKey` and `objectsSecret` open the object stores; `backupKey` (32 bytes in
    hexadecimal digits) seals what is backed up, which is lost with it; `probe` and `operator` are
    the secrets of the clients of those names.
    """

    superuser: str
    replication: str
    authDatabase: str
    usersDatabase: str
    ordersDatabase: str
    paymentsDatabase: str
    inventoryDatabase: str
    notificationsDatabase: str
    valkey: str
    supervisor: str
    tokenKey: str
    gatewayKey: str
    webhookSecret: str
    objectsKey: str
    objectsSecret: str
    backupKey: str
    probe: str
    operator: str

    def databases(self) -> dict[str, str]:
        """The password of each service's role."""
        known: dict[str, str] = vars(self)
        return {role: known[f"{role}Database"] for role in ROLES}


@dataclass(frozen=True)
class SystemUser:
    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Layout:
    """Names of everything below `root`; makes and reads nothing."""

    root: Path

    @property
    def state(self) -> Path:
        return self.root / "state.json"

    @property
    def topology(self) -> Path:
        return self.root / "topology.yaml"

    @property
    def instances(self) -> Path:
        return self.root / "instances.json"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets.json"

    @property
    def ca(self) -> Path:
        return self.root / "ca"

    @property
    def control(self) -> Path:
        return self.root / "control"

    @property
    def drills(self) -> Path:
        return self.root / "drills"

    @property
    def salvage(self) -> Path:
        return self.root / "salvage"

    @property
    def pgsql(self) -> Path:
        return self.root / "pgsql"

    def folder(self, region: str) -> Path:
        """The folder of a region; of the global supervisor when `region` is empty."""
        return self.root / "regions" / region if region else self.root / "global"

    def etc(self, region: str) -> Path:
        return self.folder(region) / "etc"

    def logs(self, region: str) -> Path:
        return self.folder(region) / "logs"

    def log(self, region: str, instance: str) -> Path:
        return self.logs(region) / f"{instance}.log"

    def envoy(self, region: str, instance: str) -> Path:
        return self.folder(region) / "envoy" / instance

    def data(self, region: str, instance: str) -> Path:
        """The folder of one stateful instance; PostgreSQL's data directory is `pgdata` in it."""
        return self.folder(region) / "data" / instance

    def pgdata(self, region: str, instance: str) -> Path:
        return self.data(region, instance) / "pgdata"

    def marker(self, region: str, instance: str) -> Path:
        """Written last: the data directory beside it is whole."""
        return self.data(region, instance) / "complete"

    def shard_map(self, region: str) -> Path:
        return self.etc(region) / "shardmap.json"

    def secrets_of(self, region: str, component: str) -> Path:
        """What a service, or a peer (in no region), is told of the secrets."""
        return self.etc(region) / f"secrets-{component}.json"

    def client(self, name: str) -> Path:
        """The credentials of a client program: "probe" or "operator"."""
        return self.control / "clients" / f"{name}.json"

    def link_table(self, region: str) -> Path:
        return self.etc(region) / "link.json"


def create(
    root: Path, *, topology: str, document: str, port_offset: int, postgres_bin: str | None = None
) -> State:
    """Makes the state directory, or opens the one that is there.

    `topology` is the platform's name, `document` its YAML. Raises `Refused` when another platform,
    another owner or another port offset lives here, `Invalid` for an impossible path.
    """
    if not _SAFE_PATH.fullmatch(str(root)):
        raise Invalid(
            f"The state directory {str(root)!r} has a character that process supervisors misread.",
            hint="Choose --state-dir from letters, digits and . _ - / only.",
        )
    layout = Layout(root)
    if layout.state.exists():
        state = read_state(root)
        if state.topology != topology:
            raise Refused(
                f"{root} holds the platform {state.topology!r}, not {topology!r}.",
                hint="Give the new platform a --state-dir and a --port-offset of its own.",
            )
        if state.portOffset != port_offset:
            raise Refused(
                f"{root} holds the platform {state.topology!r}, made at port offset "
                f"{state.portOffset}; it cannot be moved to {port_offset}.",
                hint=f"Leave --port-offset out, or say --port-offset {state.portOffset}.",
            )
        return state
    with explain_disk(root):
        for folder in (root, layout.control, layout.drills, layout.salvage, layout.ca):
            make_folder(folder)
        make_folder(layout.folder(""))
        read_secrets(layout)
        replace_file(layout.topology, document)
        state = State(
            FORMAT, topology, os.geteuid(), port_offset, datetime.now(UTC).isoformat(), postgres_bin
        )
        replace_file(layout.state, json.dumps(asdict(state), indent=1))
    return state


def read_state(root: Path) -> State:
    """Raises `NotFound` when nothing is here, `Refused` for another format or another owner."""
    try:
        raw: Any = json.loads(Layout(root).state.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(f"No platform lives in {root}.", hint="regionctl up") from None
    except PermissionError as error:
        raise Refused(
            f"{root} belongs to another user.", hint="Run as that user, or choose --state-dir."
        ) from error
    except ValueError as error:
        raise Refused(
            f"{root}/state.json is damaged: {error}.",
            hint=f"Restore it, or move {root} away and run regionctl up.",
        ) from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else None
        raise Refused(
            f"{root} was made in format {found!r} by another version; this one reads {FORMAT}.",
            hint="Use that version, or choose another --state-dir.",
        )
    fields: dict[str, Any] = {key: raw.get(key) for key in State.__dataclass_fields__}
    state = State(**fields)
    if state.ownerUid != os.geteuid():
        raise Refused(
            f"{root} belongs to user {user_name(state.ownerUid)}.",
            hint=f"Run as {user_name(state.ownerUid)}, or choose another --state-dir.",
        )
    return state


def read_secrets(layout: Layout) -> Secrets:
    """The passwords and keys; those that are missing are made."""
    raw: dict[str, Any] = {}
    if layout.secrets.exists():
        raw = json.loads(layout.secrets.read_text(encoding="utf-8"))
    missing = [key for key in Secrets.__dataclass_fields__ if key not in raw]
    if missing:
        raw |= {key: _make_secret(key) for key in missing}
        replace_file(layout.secrets, json.dumps(raw, indent=1))
    return Secrets(**{key: str(raw[key]) for key in Secrets.__dataclass_fields__})


def _make_secret(key: str) -> str:
    if key == "tokenKey":
        return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    if key == "backupKey":
        return secrets.token_hex(32)
    if key == "webhookSecret":
        return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    return secrets.token_urlsafe(24)


@contextlib.contextmanager
def exclusive(layout: Layout) -> Iterator[None]:
    """Only one `up` or `down` at a time. Raises `Refused` while another process holds the lock."""
    make_folder(layout.root)
    with layout.lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise Refused(
                f"Another regionctl (pid {holder}) is working on {layout.root}.",
                hint="Wait for it, or choose another --state-dir.",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def folder_mode() -> int:
    """0711 as root, so that the database user may pass through; 0700 otherwise."""
    return 0o711 if os.geteuid() == 0 else 0o700


def make_folder(path: Path, *, owner: SystemUser | None = None, mode: int | None = None) -> None:
    """The folder exists with that owner and mode; parents are made passable."""
    for parent in (*reversed(path.parents), path):
        if not parent.exists():
            parent.mkdir(mode=folder_mode(), exist_ok=True)
            parent.chmod(folder_mode())
    if mode is not None:
        path.chmod(mode)
    if owner is not None:
        os.chown(path, owner.uid, owner.gid)


def replace_file(
    path: Path,
    text: str,
    *,
    mode: int = 0o600,
    owner: SystemUser | None = None,
    durable: bool = True,
) -> None:
    """Writes the file in one go: a reader sees the old text or the new one.

    It is on disk afterwards; with `durable=False` a power cut may lose it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            if owner is not None:
                os.fchown(file.fileno(), owner.uid, owner.gid)
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def database_user() -> SystemUser | None:
    """Whom PostgreSQL runs as when we are root, which it refuses; None: as ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return SystemUser(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise Refused(
        "PostgreSQL refuses to run as root, and neither user postgres nor nobody exists.",
        hint="Run regionctl as an ordinary user.",
    )


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@contextlib.contextmanager
def explain_disk(path: Path) -> Iterator[None]:
    """Turns a full disk or a forbidden folder into a Problem."""
    try:
        yield
    except OSError as error:
        raise OperationFailed(
            f"Cannot write below {path}: {error.strerror or error}.",
            hint=f"Free space with df -h {path}, check its owner, then run the command again.",
            runbook="disk-full" if error.errno == errno.ENOSPC else None,
            extra={"errno": error.errno},
        ) from error
