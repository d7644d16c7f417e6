"""What can be asked for here, what its plan says, and when it is out of place. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cli.dash.view import FAILING, JSON, RUNNING, Cell, Contact
from cli.progress import subject

VERBS = ("failover", "switchover", "drill", "reshard", "failback", "backup")


@dataclass(frozen=True)
class Intent:
    """`verb` with `args`, as the API takes them. `typed`, if any, must be typed first."""

    verb: str
    title: str
    command: str
    args: Mapping[str, Any] = field(default_factory=dict)
    typed: str = ""
    button: str = "Go ahead"

    def equivalent(self, reason: str = "", *, accept_loss: bool = False) -> str:
        """The command line that does the same."""
        words = [self.command]
        words += ["--accept-data-loss"] if accept_loss else []
        words += ["--reason", shlex.quote(reason)] if reason else []
        words += ["--confirm", self.typed] if self.typed else []
        return " ".join(words)


def failover(target: str) -> Intent:
    return Intent(
        "failover",
        f"FAILOVER {target}",
        f"regionctl failover run {target}",
        {"target": target},
        typed=target,
        button="Fail over",
    )


def switchover(target: str, *, region: bool) -> Intent:
    to = f"--to {target}" if region else target
    return Intent(
        "switchover",
        f"SWITCHOVER {'everything to ' if region else ''}{target}",
        f"regionctl switchover run {to}",
        {"to": target} if region else {"target": target},
        button="Switch over",
    )


def drill(name: str) -> Intent:
    command = f"regionctl drill run {name}"
    return Intent("drill", f"DRILL {name}", command, {"drill": name}, button="Run the drill")


def reshard(shards: int) -> Intent:
    command = f"regionctl shard reshard --to {shards}"
    return Intent("reshard", f"RESHARD to {shards} shards", command, {"to": shards}, button="Move")


def failback() -> Intent:
    return Intent("failback", "FAILBACK", "regionctl failback run", button="Bring it home")


def backup(database: str) -> Intent:
    command = f"regionctl backup create {database}"
    return Intent("backup", f"BACKUP {database}", command, {"database": database}, button="Back up")


def blocked(verb: str, document: JSON | None, contact: Contact) -> str:
    """Why `verb` is out of place just now; "" when it is not."""
    if document is None or contact.stale:
        return (
            "The control plane does not answer: nothing can be done from here (ctrl+r asks again)."
        )
    running = [each for each in document["operations"] if each["state"] in RUNNING]
    if verb == "abort":
        return "" if running else "No operation is running."
    if verb in ("failover", "backup"):
        return ""
    busy = next((each for each in running if each["kind"] in (*FAILING, "drill")), None)
    return f"{busy['id']} {busy['kind']} {busy['target']} is running." if busy else ""


def plan_lines(plan: JSON, room: int) -> list[Cell]:
    """What would be done, what it stands on and what it may lose; at most `room` lines of steps."""
    steps = plan["steps"]
    if not steps:
        return [Cell("Nothing to do: it is so already.", "ok")]
    lines = [
        Cell(f"{number:>3} {step['name']}  {subject(step['args'])}".rstrip())
        for number, step in enumerate(steps, start=1)
    ]
    if len(lines) > room:
        rest = len(lines) - room + 1
        lines = [*lines[: room - 1], Cell(f"    and {rest} more steps", "dim")]
    expected = plan.get("expected", {})
    lines.append(loss(expected))
    lines += [Cell(line, "dim") for line in guards(plan)]
    facts = [
        f"{key} {value}"
        for key, value in expected.items()
        if key != "lossSeconds" and isinstance(value, str | int | float)
    ]
    return lines + ([Cell("expected: " + ", ".join(facts), "dim")] if facts else [])


def loss(expected: JSON) -> Cell:
    if "lossSeconds" not in expected:
        return Cell("loss: none expected", "ok")
    seconds = expected["lossSeconds"]
    if seconds is None:
        return Cell("loss: not known: nobody can say what was not replicated", "bad")
    if seconds == 0:
        return Cell("loss: none", "ok")
    return Cell(f"loss: up to {seconds:.2f} s of the newest writes", "bad")


def guards(plan: JSON) -> list[str]:
    """What must still hold when it begins; else it is refused and nothing was changed."""
    locks: Sequence[str] = plan.get("locks", ())
    lines = [f"guard: nothing else holds {', '.join(locks)}"] if locks else []
    premises = plan.get("premises") or {}
    if premises:
        shown = [
            f"{name}: {primary} leads (epoch {epoch}), in sync {', '.join(sync) or 'none'}"
            for name, (primary, epoch, sync) in list(premises.items())[:2]
        ]
        more = f" and {len(premises) - 2} more" if len(premises) > 2 else ""
        lines.append(f"guard: {'; '.join(shown)}{more}")
    return lines
