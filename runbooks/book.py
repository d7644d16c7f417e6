"""Reads runbooks. It needs nothing but the files, so it works while everything else is away.

A runbook is a Markdown file of this folder. Its front matter is YAML:

    title, symptom      what it is, and what a person sees of it
    alert               the rule that reports it, and its threshold
    drill               the drill that brings the situation about
    scenario, rto, rpo  the row of the disaster-recovery table, and its limits
    asks                name → {says, example, default}: what has to be known before
    steps               a list of `Step`, to be taken in order

`{name}` in a step stands for what was answered for that name in `asks`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from runtime.errors import Invalid

Value = str | int | float
Confirm = Literal["none", "yes", "name"]
PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
SUFFIX = ".md"


@dataclass(frozen=True)
class Ask:
    """`example` has the type of the answer; without a `default` somebody has to answer."""

    name: str
    says: str
    example: Value
    default: Value | None = None

    def value(self, text: str) -> Value:
        """What `text` means. Raises `Invalid` when it is no number where one is wanted."""
        try:
            return type(self.example)(text)
        except ValueError:
            raise Invalid(
                f"{self.name} is a number, not {text!r}.",
                hint=f"such as {self.name}={self.example}",
            ) from None


@dataclass(frozen=True)
class Step:
    """One step: a command of the console, or an operation (`verb` with `args`).

    `does`: what it does; `expect`: what is seen when all is well; `stop`: how to stop it, or when
    not to take it. `confirm`: before it changes something a person says yes, or, when it may lose
    something, types the name of what it is about. A command with `within` is a check: it is
    repeated for so many seconds until it ends with exit code 0. One without, and without `confirm`,
    is a look. The name to be typed is that of the plan's target; for a command the platform's.
    """

    title: str
    does: str
    expect: str
    stop: str
    command: str | None = None
    verb: str | None = None
    args: Mapping[str, Any] | None = None
    confirm: Confirm = "none"
    within: float | None = None

    @property
    def looks(self) -> bool:
        """Whatever it shows, the next step follows."""
        return self.command is not None and self.within is None and self.confirm == "none"

    @property
    def wanted(self) -> set[str]:
        """What has to be answered before it can be taken."""
        words = [self.command, *(self.args or {}).values()]
        return {
            name for word in words if isinstance(word, str) for name in PLACEHOLDER.findall(word)
        }

    def words(self, values: Mapping[str, Value]) -> list[str]:
        """The words of its command behind "regionctl"; none of an operation. An answer is one word,
        whatever is in it."""
        return [filled(word, values) for word in shlex.split(self.command or "")[1:]]

    def arguments(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """The arguments of its operation."""
        return {key: _argument(value, values) for key, value in (self.args or {}).items()}


@dataclass(frozen=True)
class Runbook:
    """`text` is the Markdown behind the front matter."""

    name: str
    title: str
    symptom: str
    alert: str
    steps: tuple[Step, ...]
    text: str
    drill: str | None = None
    scenario: str | None = None
    rto: str | None = None
    rpo: str | None = None
    asks: tuple[Ask, ...] = ()


def names() -> tuple[str, ...]:
    """Of all runbooks, sorted."""
    found = (file.name for file in files(__package__).iterdir())
    return tuple(sorted(name.removesuffix(SUFFIX) for name in found if name.endswith(SUFFIX)))


@cache
def read(name: str) -> Runbook:
    """The runbook `name`, which must be one of `names()`. Raises `Invalid` when it is not right."""
    return parse(name, (files(__package__) / f"{name}{SUFFIX}").read_text(encoding="utf-8"))


def parse(name: str, markdown: str) -> Runbook:
    """The runbook that `markdown` is. Raises `Invalid`, saying what is wrong with it."""
    import yaml

    before, begin, rest = markdown.partition("---\n")
    front, end, text = rest.partition("\n---\n")
    if before or not begin or not end:
        raise Invalid(f"runbook {name}: it has no front matter.")
    try:
        head = yaml.safe_load(front)
        asks = tuple(Ask(key, **ask) for key, ask in head.pop("asks", {}).items())
        steps = tuple(_step(each) for each in head.pop("steps"))
        book = Runbook(name, steps=steps, asks=asks, text=text.strip() + "\n", **head)
    except (yaml.YAMLError, TypeError, KeyError, AttributeError, ValueError) as error:
        raise Invalid(f"runbook {name}: {error}") from error
    _check(book)
    return book


def _step(document: Mapping[str, Any]) -> Step:
    confirm = document.get("confirm", "none")
    given = {**document, "confirm": "yes" if confirm is True else confirm}
    unknown = set(given) - {field.name for field in fields(Step)}
    if unknown:
        raise ValueError(f"a step has no {', '.join(sorted(unknown))}")
    return Step(**given)


def _check(book: Runbook) -> None:
    known = {ask.name for ask in book.asks}
    for number, step in enumerate(book.steps, start=1):
        at = f"runbook {book.name}, step {number}:"
        if (step.command is None) == (step.verb is None):
            raise Invalid(f"{at} it has a command or a verb, not both.")
        if step.command is not None and not step.command.startswith("regionctl "):
            raise Invalid(f"{at} {step.command!r} is no command of regionctl.")
        if step.confirm not in ("none", "yes", "name"):
            raise Invalid(f"{at} confirm is none, yes or name, not {step.confirm!r}.")
        if step.wanted - known:
            raise Invalid(f"{at} nobody asks for {', '.join(sorted(step.wanted - known))}.")


def filled(text: str, values: Mapping[str, Value]) -> str:
    """`text` with every placeholder replaced; by its name in capitals when nothing is known."""
    return PLACEHOLDER.sub(lambda found: str(values.get(found[1], found[1].upper())), text)


def _argument(value: Any, values: Mapping[str, Value]) -> Any:
    """As `filled`; a placeholder that is all of `value` keeps the type of its answer."""
    if not isinstance(value, str):
        return value
    whole = PLACEHOLDER.fullmatch(value)
    return values[whole[1]] if whole and whole[1] in values else filled(value, values)
