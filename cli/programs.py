"""Runs a part of regionctl that the console may not import, as a program of its own.

Such a program prints one line of JSON on stdout: its answer, or, with an exit code other than 0,
an RFC 9457 problem document.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from cli.settings import child_environment
from runtime.errors import Problem


async def call(module: str, *arguments: str) -> dict[str, Any]:
    """The answer of `python -m MODULE ARGUMENTS`. Raises the `Problem` that it reports."""
    code, answer = await ask(module, *arguments)
    if code:
        raise Problem(
            f"python -m {module} ended with exit code {code}.",
            hint="regionctl doctor",
            extra={"lines": [json.dumps(answer)]},
        )
    return answer


async def ask(module: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code, which says something about what was asked, and the answer.

    Raises the `Problem` that the program reports, and one when it gives no answer.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        env=child_environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        stdout, stderr = await process.communicate()
    except asyncio.CancelledError:
        if process.returncode is None:
            process.terminate()
            await process.wait()
        raise
    answer = _last_document(stdout.decode("utf-8", "replace"))
    if answer is not None and str(answer.get("type", "")).startswith("urn:regionctl:problem:"):
        raise Problem.from_document(answer)
    if process.returncode is not None and answer is not None:
        return process.returncode, answer
    lines = stderr.decode("utf-8", "replace").strip().splitlines()[-15:]
    raise Problem(
        f"python -m {module} ended with exit code {process.returncode} and no answer.",
        hint="regionctl doctor",
        extra={"lines": lines},
    )


def _last_document(text: str) -> dict[str, Any] | None:
    for line in reversed(text.splitlines()):
        try:
            document = json.loads(line)
        except ValueError:
            continue
        if isinstance(document, dict):
            return document
    return None
