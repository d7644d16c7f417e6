"""Carries the Dockerfile out where there is no Docker: `python -m tests.infra.aws.build_image DIR`.

By hand, as root, on Linux with a Python 3.11 of its own under /usr. Each instruction is done as it
stands, in a root directory of its own (chroot, mount namespace): RUN by sh, COPY from what
.dockerignore lets through, ENV, WORKDIR, ARG and USER as Docker does. What is not the image: the
base is this machine's /usr, by an overlay, with a pip put into it; ADD of a URL is tried, and told
when it fails. At the end the entry point is started as the image's user, with a root file system
that nobody can write to. It takes some minutes and the network.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.infra.aws.test_image import ROOT, instructions

LINKS = ("bin", "lib", "lib64", "sbin")
EMPTY = ("dev", "opt", "proc", "root", "run", "src", "tmp", "var/tmp")
PASSED_ON = ("PIP_", "SSL_", "HTTP", "http", "NO_PROXY", "no_proxy")
CHROOT = shutil.which("chroot") or "/usr/sbin/chroot"
BASE = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root"}


class Stage:
    """One FROM and what follows it. `root` is its file system."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = dict(BASE)
        self.folder = "/"
        self.user = ""
        self.start: list[str] = []
        self._make()

    def _make(self) -> None:
        upper, work = self.root.with_suffix(".upper"), self.root.with_suffix(".work")
        for folder in (self.root / "usr", upper, work, *(self.root / name for name in EMPTY)):
            folder.mkdir(parents=True)
        for name in LINKS:
            (self.root / name).symlink_to(f"usr/{name}")
        shutil.copytree("/etc", self.root / "etc", symlinks=True)
        options = f"lowerdir=/usr,upperdir={upper},workdir={work}"
        call("mount", "-t", "overlay", "overlay", "-o", options, str(self.root / "usr"))
        call("mount", "--rbind", "/dev", str(self.root / "dev"))
        call("mount", "-t", "proc", "proc", str(self.root / "proc"))
        local = self.root / "usr/local/bin"
        (local / "python").unlink(missing_ok=True)
        (local / "python").symlink_to("/usr/bin/python3")
        # Debian's own; the base has none.
        for mark in self.root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            mark.unlink()
        # The very pip of this environment: the folder is a program of its own.
        shutil.copytree(Path(pip_folder()), self.root / "opt/base/pip")
        write(local / "pip", '#!/bin/sh\nexec python /opt/base/pip "$@"\n')

    def at(self, path: str) -> Path:
        return self.root / str(Path("/", self.folder, path)).lstrip("/")

    def run(self, *command: str, user: str = "") -> subprocess.CompletedProcess[bytes]:
        own = {key: value for key, value in os.environ.items() if key.startswith(PASSED_ON)}
        become = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups") if user else ()
        cd = ("sh", "-c", f'cd {self.folder} && exec "$@"', "sh")
        words = [CHROOT, str(self.root), *become, *cd, *command]
        return subprocess.run(words, env={**own, **self.environment}, check=False)


def pip_folder() -> str:
    import pip

    return str(Path(pip.__file__).parent)


def write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def call(*command: str) -> None:
    subprocess.run(command, check=True)


def carry_out(stage: Stage, stages: dict[str, Stage], name: str, rest: str) -> None:
    """One instruction. Raises `SystemExit` when it fails."""
    match name:
        case "RUN":
            if stage.run("sh", "-c", rest).returncode:
                raise SystemExit(f"failed: RUN {rest}")
        case "COPY":
            words = rest.split()
            flags = [word for word in words if word.startswith("--from=")]
            *sources, target = [word for word in words if not word.startswith("--")]
            come = stages[flags[0].partition("=")[2]].root if flags else ROOT
            for source in sources:
                copy(come / source.lstrip("/"), stage.at(target), target.endswith("/"))
        case "ADD":
            *_, url, target = rest.split()
            try:
                with urllib.request.urlopen(url, timeout=30) as answer:
                    stage.at(target).write_bytes(answer.read())
            except OSError as error:
                print(f"NOT DONE: ADD {url}: {error}", flush=True)
        case "ENV":
            for key, value in re.findall(r'(\w+)=("[^"]*"|\S+)', rest):
                stage.environment[key] = value.strip('"')
        case "WORKDIR":
            stage.folder = rest
            stage.at(rest).mkdir(parents=True, exist_ok=True)
        case "USER":
            stage.user = rest.partition(":")[0]
        case "ENTRYPOINT" | "CMD":
            stage.start += json.loads(rest)
        case "ARG" | "LABEL" | "VOLUME" | "EXPOSE" | "STOPSIGNAL" | "HEALTHCHECK":
            pass
        case _:
            raise SystemExit(f"nobody knows here: {name}")


def copy(source: Path, target: Path, into: bool) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=ignored, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target / source.name if into else target)


def main(folder: Path) -> None:
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for name, rest in instructions():
        print(f"{name} {rest}", flush=True)
        if name == "FROM":
            stage = Stage(folder / f"stage{len(stages)}")
            stages[rest.partition(" AS ")[2] or "last"] = stage
        elif stage is not None:
            carry_out(stage, stages, name, rest)
    assert stage is not None
    started(stage)


def started(stage: Stage) -> None:
    """The image's program begins as its user, and cannot write but where it should."""
    # What the base would not have, and the image must not need.
    shutil.rmtree(stage.root / "opt/base")
    call("mount", "--rbind", str(stage.root), str(stage.root))
    call("mount", "-o", "remount,bind,ro", str(stage.root))
    *entry, _run, _component = stage.start
    for words, code in (
        (("python", "-c", IMPORTS), 0),
        (("regionctl", "--help"), 0),
        (("python", "-m", "pip", "--version"), 1),
        (("sh", "-c", "touch /etc/x || touch /opt/regionctl/x"), 1),
        (tuple(entry), 2),
    ):
        done = stage.run(*words, user=stage.user)
        print(f"→ {' '.join(words)[:80]}: exit {done.returncode}, wanted {code}", flush=True)
        if done.returncode != code:
            raise SystemExit("that is not as it should be")


IMPORTS = (
    "import os, runtime.app, control_plane.app, infra.aws.container, infra.aws.provider, boto3; "
    "assert os.getuid() == 10001; from infra.local import envoy; print(envoy.command)"
)

if __name__ == "__main__":
    if "REGIONCTL_IN_NAMESPACE" not in os.environ:
        os.environ["REGIONCTL_IN_NAMESPACE"] = "1"
        os.execvp(
            "unshare", ["unshare", "--mount", sys.executable, "-m", __spec__.name, *sys.argv[1:]]
        )
    main(Path(sys.argv[1]).absolute())
