"""What a person is told and asked about a step of a runbook."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Mapping, Sequence
from typing import Literal

from cli import render
from cli.asking import prompt
from runbooks.book import Runbook, Step, Value, filled
from runtime.errors import Invalid

Choice = Literal["go", "skip", "quit"]
WIDTH = 100


def told(step: Step, values: Mapping[str, Value], indent: str) -> list[str]:
    """What a person is told about a step, as lines."""
    if step.verb is None:
        runs = f"regionctl {shlex.join(step.words(values))}"
        if step.within is not None:
            runs += f"  (until it succeeds, at most {render.seconds(step.within)})"
    else:
        given = ", ".join(f"{key} {value}" for key, value in step.arguments(values).items())
        runs = f"operation {step.verb}" + (f": {given}" if given else "")
    texts = {"does": step.does, "expect": step.expect, "stop": step.stop}
    lines = []
    for key, text in texts.items():
        lines += textwrap.wrap(
            filled(text, values),
            WIDTH,
            initial_indent=f"{indent}{key:<8}",
            subsequent_indent=indent + 8 * " ",
            break_on_hyphens=False,
        )
    return [*lines, f"{indent}{'runs':<8}{runs}"]


def unanswered(book: Runbook, names: list[str]) -> Invalid:
    """Somebody has to say these first."""
    asks = {ask.name: ask for ask in book.asks}
    said = "; ".join(f"{name}: {asks[name].says}" for name in names)
    given = " ".join(f"--set {name}={asks[name].example}" for name in names)
    return Invalid(f"{book.name} has to know {said}.", hint=f"such as {given}")


async def choose(offer: str, go: Sequence[str]) -> Choice:
    """What a person wants, who is asked until they say it: one of `go`, to skip or to quit."""
    while True:
        answer = await prompt(f"{offer}, [s]kip or [q]uit? ")
        if answer in go:
            return "go"
        if answer.lower() in ("s", "skip"):
            return "skip"
        if answer.lower() in ("q", "quit"):
            return "quit"
        render.note(f"{answer!r} is none of these; nothing was done")
