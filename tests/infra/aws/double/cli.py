"""The double's commands, as the Automation API calls them: `pulumi … --stack S`.

The backend is a folder (PULUMI_BACKEND_URL=file://DIR): DIR/STACK.json is the state, DIR/STACK.lock
the lock of whoever changes it, DIR/no-plugin says that the AWS plugin is missing, DIR/pause-after
after how many steps a change waits for ^C (then there is DIR/paused).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.infra.aws.double.engine import Engine

VERSION = "v3.272.0"


class Failed(Exception):
    """What the CLI would end with: its stderr, and what it wrote to stdout before."""

    def __init__(self, text: str, on_stdout: str = "") -> None:
        super().__init__(text)
        self.on_stdout = on_stdout


class Call:
    """The words of one call and its options."""

    def __init__(self, arguments: list[str]) -> None:
        self.words: list[str] = []
        self.options: dict[str, list[str]] = {}
        rest = [each for each in arguments if each != "--non-interactive"]
        while rest:
            word = rest.pop(0)
            if not word.startswith("--"):
                self.words.append(word)
                continue
            key, given, value = word.removeprefix("--").partition("=")
            takes = not given and rest and not rest[0].startswith("--") and key not in FLAGS
            self.options.setdefault(key, []).append(rest.pop(0) if takes else value)

    def one(self, key: str) -> str:
        return self.options.get(key, [""])[0]


FLAGS = {
    *("yes", "skip-preview", "json", "show-secrets", "preview-only", "suppress-outputs"),
    *("exclude-protected", "diff"),
}


def backend() -> Path:
    url = os.environ.get("PULUMI_BACKEND_URL", "")
    folder = Path(url.removeprefix("file://"))
    if not url.startswith("file://") or not folder.is_dir():
        raise Failed(f"error: unable to open bucket {url}: no such file or directory")
    return folder


def main(arguments: list[str]) -> int:
    call = Call(arguments)
    try:
        print(answer(call))
    except Failed as error:
        sys.stdout.write(error.on_stdout)
        sys.stderr.write(f"{error}\n")
        return 255
    return 0


def answer(call: Call) -> str:
    match call.words:
        case ["version"]:
            return VERSION
        case ["whoami"]:
            return json.dumps({"user": "double", "url": str(backend())})
        case ["plugin", "ls"]:
            return json.dumps(plugins())
        case ["stack", "init", name]:
            return init(name)
        case ["stack", *words]:
            return stack(words, call)
        case [("preview" | "up" | "refresh" | "destroy") as action]:
            return operate(action, call)
    raise Failed(f"error: the double does not know {' '.join(call.words)}")


def plugins() -> list[dict[str, Any]]:
    if (backend() / "no-plugin").exists():
        return []
    used = "2026-01-01T00:00:00.000Z"
    return [
        {"name": "aws", "kind": "resource", "version": "7.51.1", "size": 1, "lastUsedTime": used}
    ]


def init(name: str) -> str:
    (backend() / f"{name}.json").write_text(json.dumps({"version": 0, "resources": []}))
    return f"Created stack '{name}'"


def stack(words: list[str], call: Call) -> str:
    name = call.one("stack")
    state = read(name)
    match words:
        case ["select"] | []:
            return ""
        case ["output"]:
            return json.dumps(state.get("outputs", {}))
        case ["export"]:
            return json.dumps({"version": 3, "deployment": {"resources": state["resources"]}})
        case ["history"]:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
            entry = {"kind": "update", "startTime": now, "endTime": now, "message": ""}
            rest = {"environment": {}, "config": {}, "result": "succeeded"}
            return json.dumps([{**entry, **rest, "version": state["version"]}])
    raise Failed(f"error: the double does not know stack {' '.join(words)}")


def read(name: str) -> dict[str, Any]:
    file = backend() / f"{name}.json"
    if not file.exists():
        raise Failed(f"error: no stack named '{name}' found")
    return dict(json.loads(file.read_text()))


def operate(action: str, call: Call) -> str:
    name = call.one("stack")
    state = read(name)
    if (backend() / f"{name}.lock").exists():
        raise Failed(f"error: the stack is currently locked by 1 lock(s). {name}")
    if not any(key in os.environ for key in SECRETS):
        raise Failed("error: passphrase must be set with PULUMI_CONFIG_PASSPHRASE")
    if (backend() / "no-plugin").exists():
        raise Failed("error: no resource plugin 'pulumi-resource-aws' found in the workspace")
    # Only now: most calls need no gRPC, which takes half a second to load.
    from tests.infra.aws.double.engine import Engine

    engine = Engine(name, state, call.one("event-log"), call.one("client"))
    signal.signal(signal.SIGINT, lambda *_: engine.cancel())
    if action == "preview" or "preview-only" in call.options:
        carry_out(engine, action, call, dry=True)
        return SAID
    if (backend() / "pause-after").exists():
        engine.pause = backend() / "pause-after"
    lock = backend() / f"{name}.lock"
    lock.touch()
    try:
        carry_out(engine, action, call, dry=False)
    finally:
        (backend() / f"{name}.json").write_text(json.dumps(engine.state))
        lock.unlink()
    return SAID


def carry_out(engine: Engine, action: str, call: Call, *, dry: bool) -> None:
    if action in ("preview", "up"):
        engine.update(
            dry=dry,
            packs=call.options.get("policy-pack", []),
            targets=call.options.get("target", []),
        )
    elif action == "destroy":
        engine.destroy(dry=dry, keep_protected="exclude-protected" in call.options)
    else:
        engine.refresh()


SAID = "TEST DOUBLE - nothing was made"
SECRETS = ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE")

if __name__ == "__main__":
    from tests.infra.aws.double import cli

    sys.exit(cli.main(sys.argv[1:]))
