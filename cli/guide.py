"""Takes a person, or nobody, through the steps of a runbook.

What a step shows on the way goes to stderr, except what its command answers to a person; stdout
ends with one document about the whole run.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cli import find, recover, rehearsal, render, work
from cli.asking import prompt
from cli.itself import Ended, Execute, execute
from cli.leaf import Run
from cli.render import Table
from cli.steps import choose, told, unanswered
from runbooks.book import Runbook, Step, Value
from runtime.errors import Declined, Invalid, Needless, OperationFailed, Problem, Refused

if TYPE_CHECKING:
    from control_plane.client import Client

JSON = dict[str, Any]
CHECKED_EVERY_SECONDS = 1.0


class Skipped(Exception):
    """A person does not want this step."""


@dataclass
class Guide:
    """One run of a runbook, from its step number `first`.

    `values` are answers to what it asks for; a person is asked for those that are missing when a
    step needs them. `rehearsed` is the drill that brought the situation about.
    """

    run: Run
    book: Runbook
    values: dict[str, Value]
    unattended: bool
    first: int = 1
    execute: Execute = execute
    rehearsed: rehearsal.Rehearsal | None = None
    steps: list[JSON] = field(default_factory=list)

    async def through(self) -> None:
        """Takes the steps and prints what became of them.

        Raises what a step failed with, `Declined` when a person quits.
        """
        state = "failed"
        try:
            for number, step in enumerate(self.book.steps, start=1):
                if number >= self.first:
                    await self._take(number, step)
            state = "planned" if self.run.dry_run else "done"
            if self.rehearsed:
                await self.rehearsed.ended(self.run)
        except Declined:
            state = "quit"
            raise
        except asyncio.CancelledError:
            state = "interrupted"
            self._say_how_to_go_on()
            raise
        except Problem:
            self._say_how_to_go_on()
            raise
        finally:
            self._show(state)

    async def _take(self, number: int, step: Step) -> None:
        self._announce(number, step)
        record: JSON = {"number": number, "title": step.title, "state": "failed", "operation": None}
        began = time.monotonic()
        self.steps.append(record)
        try:
            await self._answer(step)
            if step.verb is None:
                record["state"] = await self._command(number, step)
            else:
                record |= await self._operate(number, step)
        except Skipped:
            record["state"] = "skipped"
        except Declined:
            record["state"] = "quit"
            raise
        except asyncio.CancelledError:
            record["state"] = "interrupted"
            raise
        except Problem as problem:
            record["detail"] = problem.detail
            raise
        finally:
            record["operation"] = record["operation"] or self.run.operation
            if record["state"] not in ("failed", "interrupted"):
                self.run.operation = None
            record["seconds"] = round(time.monotonic() - began, 3)

    def _announce(self, number: int, step: Step) -> None:
        lines = [f"step {number} of {len(self.book.steps)}: {step.title}"]
        lines += told(step, self.values, "  ")
        render.note(("" if number == self.first else "\n") + "\n".join(lines))

    # Commands.

    async def _command(self, number: int, step: Step) -> str:
        words = step.words(self.values)
        line = shlex.join(["regionctl", *words])
        if self.run.state_dir is not None:
            words += ["--state-dir", str(self.run.state_dir)]
        if self.run.dry_run:
            return "planned"
        name = ""
        if step.confirm == "name":
            name = find.platform(self.run.state_dir).name
            words += ["--confirm", name]
        if not step.looks:
            await self._agree(step, name)
        if step.confirm != "none":
            words += ["--yes", "--reason", self._reason(number, step)]
        ended = await self._until_good(words, step.within)
        self._repeat(ended)
        if ended.code and not step.looks:
            raise OperationFailed(
                f"{line} ended with exit code {ended.code}.",
                hint=f"regionctl runbook show {self.book.name}",
            )
        return "done"

    async def _until_good(self, words: list[str], within: float | None) -> Ended:
        """What it ended with; a check is repeated until its exit code is 0 or its time is over."""
        deadline = time.monotonic() + (within or 0)
        while True:
            ended = await self.execute(words, within is not None)
            if not ended.code or time.monotonic() >= deadline:
                return ended
            await asyncio.sleep(CHECKED_EVERY_SECONDS)

    def _repeat(self, ended: Ended) -> None:
        say = render.out if self.run.output.for_people else render.note
        for text, tell in ((ended.noted, render.note), (ended.said, say)):
            if text.strip():
                tell(text.rstrip("\n"))
        if ended.code:
            render.note(f"(exit code {ended.code})")

    # Operations.

    async def _operate(self, number: int, step: Step) -> JSON:
        """The state, and the operation that was started.

        While another operation is at work on the same thing its end is awaited, and then the step
        is planned anew.
        """
        if self.rehearsed:
            await self.rehearsed.ended(self.run)
        args, reason = step.arguments(self.values), self._reason(number, step)
        async with work.connect(self.run) as client:
            while True:
                try:
                    plan = await self._plan(client, step, args, reason)
                except Refused as refused:
                    if not self.run.dry_run:
                        raise
                    render.note(f"refused now: {refused.detail}")
                    return {"state": "refused"}
                if plan is None:
                    return {"state": "nothing-to-do"}
                if self.run.dry_run:
                    return {"state": "planned"}
                if self.rehearsed and step.confirm == "name":
                    render.note("not done: it may lose something, and this is a drill")
                    return {"state": "skipped"}
                await self._agree(step, plan["target"])
                try:
                    operation = await client.start(
                        step.verb or "",
                        args,
                        reason=reason,
                        expect_generation=plan["generation"],
                    )
                except Refused as refused:
                    await self._make_way(client, refused)
                    continue
                ended = await work.wait(self.run, client, operation)
                render.note(f"{ended['id']}: {ended['state']}")
                return {"state": "done", "operation": ended["id"]}

    async def _plan(
        self, client: Client, step: Step, args: Mapping[str, Any], reason: str
    ) -> JSON | None:
        """What would be done, which is told; None when there is nothing to do."""
        verb = step.verb or ""
        try:
            plan = await work.patiently(
                lambda: client.plan(verb, args, reason), work.RESTART_SECONDS
            )
        except Needless as needless:
            render.note(f"nothing to do: {needless.detail}")
            return None
        if not plan["steps"]:
            render.note("nothing to do")
            return None
        recover.announce(plan)
        return plan

    async def _make_way(self, client: Client, refused: Refused) -> None:
        """The step can be planned anew: something has changed since, or another operation was in
        the way, whose end is awaited. Raises `refused` when it was refused for another reason."""
        if "generation" in refused.extra:
            render.note("the platform has changed meanwhile; planned anew")
            return
        id = refused.extra.get("operation")
        if id is None:
            raise refused
        render.note(f"{refused.detail}\nwaiting for its end")
        try:
            await work.wait(self.run, client, await client.operation(str(id)))
        except OperationFailed as failed:
            render.note(f"{id} failed: {failed.detail}")

    # Questions.

    async def _answer(self, step: Step) -> None:
        """What the step needs to know. Raises `Invalid` when nobody can be asked."""
        for ask in self.book.asks:
            while ask.name in step.wanted and ask.name not in self.values:
                if self.unattended or not self.run.interactive:
                    raise unanswered(self.book, [ask.name])
                text = await prompt(f"{ask.name}: {ask.says} (such as {ask.example}): ")
                try:
                    self.values[ask.name] = ask.value(text)
                except Invalid as invalid:
                    render.note(invalid.detail)

    async def _agree(self, step: Step, name: str) -> None:
        """Raises `Skipped` or `Declined`; without a person `Refused` when it is not confirmed."""
        if step.confirm == "name":
            if self.run.confirm == name:
                return
            if self.unattended:
                raise Refused(
                    f"{step.title}: this may lose something and must be confirmed by name.",
                    hint=f"add --confirm {name}",
                )
        elif self.unattended or self.run.yes:
            return
        if step.confirm == "name":
            choice = await choose(f"type {name} to go on", (name,))
        else:
            choice = await choose("[g]o", ("g", "go"))
        if choice == "skip":
            raise Skipped
        if choice == "quit":
            again = self._again(self.steps[-1]["number"])
            raise Declined("You have quit the runbook.", hint=again)

    # What is told.

    def _reason(self, number: int, step: Step) -> str:
        why = f"runbook {self.book.name}, step {number}: {step.title}"
        return f"{why} ({self.run.reason})" if self.run.reason else why

    def _again(self, number: int) -> str:
        """The command line that goes on with step `number`."""
        words = ["regionctl", "runbook", "run", self.book.name, "--from", str(number)]
        for key, value in self.values.items():
            words += ["--set", f"{key}={value}"]
        if self.run.state_dir is not None:
            words += ["--state-dir", str(self.run.state_dir)]
        if self.unattended:
            words.append("--unattended")
        if self.run.confirm is not None:
            words += ["--confirm", self.run.confirm]
        return shlex.join(words)

    def _say_how_to_go_on(self) -> None:
        if not self.steps:
            return
        done = [str(each["number"]) for each in self.steps[:-1] if each["state"] == "done"]
        number = self.steps[-1]["number"]
        render.note(
            f"\nthe runbook stopped in step {number}; "
            f"done before: {'steps ' + ', '.join(done) if done else 'nothing'}\n"
            f"to go on with it: {self._again(number)}"
        )
        if self.rehearsed and self.rehearsed.verdict == "running":
            render.note(f"its drill goes on: regionctl op watch {self.rehearsed.id}")

    def _show(self, state: str) -> None:
        document: JSON = {
            "apiVersion": "regionctl/v1",
            "kind": "RunbookRun",
            "runbook": self.book.name,
            "state": state,
            "steps": self.steps,
        }
        foot = [f"{self.book.name}: {state}"]
        if self.rehearsed:
            document["drill"] = self.rehearsed.document()
            foot.append(f"drill {self.rehearsed.id}: {self.rehearsed.verdict}")
        rows = [
            (s["number"], s["title"], s["state"], s["operation"], render.seconds(s["seconds"]))
            for s in self.steps
        ]
        columns = ("#", "step", "state", "operation", "time")
        ids = [str(each["operation"]) for each in self.steps if each["operation"]]
        render.show(self.run.output, document, tables=[Table(columns, rows, foot=foot)], names=ids)
