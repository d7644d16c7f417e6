"""What goes wrong with Pulumi's engine, in this project's words: what it means, how to mend it.

The SDK tells most of it by the text of the CLI. Pure; the SDK's errors are known by their names,
because pulumi is not imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from runtime.errors import NotFound, OperationFailed, Problem, Refused, Unauthorized

CLI = "pulumi"
INSTALL = "https://www.pulumi.com/docs/install/"
LAST_LINES = 15
LOCKED = "somebody else's update holds the lock of the stack"
Text = str


def plugin_hint() -> str:
    return f"pulumi plugin install resource aws {installed('pulumi-aws')}"


def installed(package: str) -> str:
    """The version of a package; "?" when it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "?"


def no_cli() -> Refused:
    return Refused(
        "The Pulumi CLI is not on the PATH. Without it nothing can be applied; a plan needs none.",
        hint=f"install Pulumi {installed('pulumi')} ({INSTALL}), then {plugin_hint()}",
    )


def no_backend() -> Refused:
    return Refused(
        "Nothing says where the state of the stack is kept.",
        hint="--backend s3://BUCKET (outside the regions of the topology), or PULUMI_BACKEND_URL",
    )


def problem(
    error: BaseException, stack: str, violations: Sequence[Mapping[str, Any]] = ()
) -> Problem:
    """The problem that an error of the SDK is. `violations` are the policy events before it."""
    text, kind = str(error), type(error).__name__
    broken = sorted({str(each["policy"]) for each in violations if each["level"] == "mandatory"})
    if broken:
        return Refused(
            f"Policies forbid it: {', '.join(broken)}.",
            hint="regionctl infra policy",
            extra={"lines": [str(each["message"]) for each in violations][:LAST_LINES]},
        )
    if kind == "InvalidVersionError":
        return Refused(
            f"This Pulumi CLI does not do: {text}.",
            hint=f"install Pulumi {installed('pulumi')} ({INSTALL})",
        )
    if kind == "ConcurrentUpdateError":
        return Refused(
            f"{stack}: {LOCKED}. Nothing was changed.",
            hint=f"wait for it; when its process is gone: pulumi cancel --stack {stack}",
        )
    if kind == "StackNotFoundError":
        return NotFound(f"There is no stack {stack} in this backend.", hint="regionctl infra up")
    for words, made in BY_TEXT:
        if any(word in text for word in words):
            return made(stack, text)
    return OperationFailed(
        f"Pulumi failed on the stack {stack}; what it had done stays done.",
        hint="mend what it says, then run the same again: it goes on where it ended",
        extra={"lines": _last(text)},
    )


def _last(text: str) -> list[str]:
    """The telling lines: errors first, else the end."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower() or "Traceback" in line]
    return (telling or lines)[-LAST_LINES:]


def _canceled(stack: str, text: str) -> Problem:
    return OperationFailed(
        f"The update of {stack} was interrupted; what it had done stays done.",
        hint="run the same again: it goes on where it ended",
        extra={"lines": _last(text)},
    )


def _no_plugin(_: str, text: str) -> Problem:
    return Refused(
        "The plugin of the AWS provider is not installed.",
        hint=plugin_hint(),
        extra={"lines": _last(text)},
    )


def _no_passphrase(stack: str, text: str) -> Problem:
    return Refused(
        f"The secrets of the stack {stack} cannot be read: the passphrase is missing or wrong.",
        hint="PULUMI_CONFIG_PASSPHRASE_FILE, as when the stack was made",
        extra={"lines": _last(text)},
    )


def _no_credentials(_: str, text: str) -> Problem:
    return Unauthorized(
        "AWS does not know who asks: there are no valid credentials.",
        hint="aws sso login, or AWS_PROFILE; regionctl infra doctor says what is found",
        extra={"lines": _last(text)},
    )


def _protected(stack: str, text: str) -> Problem:
    return Refused(
        f"Resources of {stack} are protected, because they hold data. They were not deleted.",
        hint="regionctl infra down --keep-data; or unprotect them one by one: pulumi state "
        "unprotect URN",
        extra={"lines": _last(text)},
    )


def _no_backend_access(_: str, text: str) -> Problem:
    return Refused(
        "The state's backend cannot be opened.",
        hint="see --backend; is the bucket there, and may you read it?",
        extra={"lines": _last(text)},
    )


BY_TEXT: Sequence[tuple[tuple[Text, ...], Callable[[str, str], Problem]]] = (
    (("error: update canceled",), _canceled),
    (("no resource plugin", "failed to install plugin", "plugin not found"), _no_plugin),
    (
        ("passphrase must be set", "incorrect passphrase", "PULUMI_CONFIG_PASSPHRASE"),
        _no_passphrase,
    ),
    (
        (
            "No valid credential sources",
            "NoCredentialProviders",
            "failed to refresh cached credentials",
            "ExpiredToken",
            "InvalidClientTokenId",
        ),
        _no_credentials,
    ),
    (("is protected", "cannot be deleted because it is protected"), _protected),
    (("unable to open bucket", "could not open", "could not get cloud url"), _no_backend_access),
)
