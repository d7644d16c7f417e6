"""The one error family of regionctl.

    Problem                 status  exit
    ├── Invalid             422     2     the request or the file is wrong
    ├── NotFound            404     2     nothing has that name
    ├── Unauthorized        401     3     no valid credentials
    ├── Forbidden           403     3     known, but not allowed
    ├── OperationFailed     500     4     an operation ran and failed
    ├── Refused             409     5     a guard said no: nothing was changed
    │   ├── StaleEpoch      503     5     the caller's shard map is older than the shard's fence
    │   └── Needless        409     5     it is so already: there is nothing to do
    ├── TooEarly            425     5     what is asked for is not known here yet
    ├── TooManyRequests     429     5     the caller's share of this minute is used up
    ├── Unavailable         503     6     a server that is needed does not answer
    ├── TimedOut            504     7     waited long enough; the work goes on
    ├── Declined            409     8     a person said no
    └── MeasurementVoid     500     9     the evidence cannot be trusted

Raise the narrowest kind, with a `hint` that a tired person can type. `runbook` names a file of
`runbooks/` without its suffix. On the wire a Problem is an RFC 9457 `application/problem+json`
document; `Problem.from_document` turns it back into its class.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, ClassVar


class Exit(IntEnum):
    """Exit codes of the command line: a stable contract."""

    OK = 0
    BUG = 1
    USAGE = 2
    AUTH = 3
    FAILED = 4
    REFUSED = 5
    UNREACHABLE = 6
    STILL_RUNNING = 7
    DECLINED = 8
    VOID = 9
    MISSED = 10
    DEGRADED = 11
    DOWN = 12
    CHANGES = 20
    INTERRUPTED = 130
    TERMINATED = 143


class Problem(Exception):
    """Something that a person must be told: what happened, what it means, what to type next.

    `detail` is a full sentence. `hint` is the next thing to do. `extra` holds JSON values that
    belong to the occurrence (an instance, a port, a log file's last lines).
    """

    status: ClassVar[int] = 500
    exit: ClassVar[Exit] = Exit.BUG
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        hint: str | None = None,
        runbook: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.runbook = runbook
        self.extra = dict(extra or {})

    def document(self) -> dict[str, Any]:
        """The problem as an RFC 9457 document; a kind of its own goes by the nearest in `KINDS`."""
        kind = next(each for each in type(self).__mro__ if each.__name__ in KINDS)
        document: dict[str, Any] = {
            "type": f"urn:regionctl:problem:{kind.__name__}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        for name in ("hint", "runbook"):
            if getattr(self, name):
                document[name] = getattr(self, name)
        if self.extra:
            document["extra"] = self.extra
        return document

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> Problem:
        """The problem that `document` describes; an unknown type becomes a plain `Problem`."""
        name = str(document.get("type", "")).rpartition(":")[2]
        kind = KINDS.get(name, Problem)
        return kind(
            str(document.get("detail") or document.get("title") or "unknown problem"),
            hint=document.get("hint"),
            runbook=document.get("runbook"),
            extra=document.get("extra"),
        )


class Invalid(Problem):
    """The request, the file or the arguments are wrong."""

    status = 422
    exit = Exit.USAGE
    title = "Invalid request"


class NotFound(Problem):
    """Nothing has that name."""

    status = 404
    exit = Exit.USAGE
    title = "Not found"


class Unauthorized(Problem):
    """No valid credentials."""

    status = 401
    exit = Exit.AUTH
    title = "Unauthorized"


class Forbidden(Problem):
    """The caller is known, and may not do this."""

    status = 403
    exit = Exit.AUTH
    title = "Forbidden"


class TooEarly(Problem):
    """What the caller refers to is not known here yet; `extra["retryAfter"]` is in seconds.

    Not a 5xx: gateways neither try again at once nor think worse of the server.
    """

    status = 425
    exit = Exit.REFUSED
    title = "Too early"


class TooManyRequests(Problem):
    """The share is used up; `extra["retryAfter"]` says in how many seconds to try again."""

    status = 429
    exit = Exit.REFUSED
    title = "Too many requests"


class OperationFailed(Problem):
    """An operation ran and failed; `extra` names the step, the log file and its last lines."""

    status = 500
    exit = Exit.FAILED
    title = "Operation failed"


class Refused(Problem):
    """A guard said no. Nothing was changed."""

    status = 409
    exit = Exit.REFUSED
    title = "Refused"


class StaleEpoch(Refused):
    """The caller's shard map is older than the shard's fence: refresh it and try again."""

    status = 503
    title = "Stale epoch"


class Needless(Refused):
    """What is asked for is so already, or what it would mend is not broken."""

    title = "Nothing to do"


class Unavailable(Problem):
    """A server that is needed does not answer."""

    status = 503
    exit = Exit.UNREACHABLE
    title = "Unavailable"


class TimedOut(Problem):
    """Waited long enough. The work itself goes on."""

    status = 504
    exit = Exit.STILL_RUNNING
    title = "Timed out"


class Declined(Problem):
    """A person said no."""

    status = 409
    exit = Exit.DECLINED
    title = "Declined"


class MeasurementVoid(Problem):
    """The evidence cannot be trusted."""

    status = 500
    exit = Exit.VOID
    title = "Measurement void"


KINDS: dict[str, type[Problem]] = {
    kind.__name__: kind
    for kind in (
        Problem,
        Invalid,
        NotFound,
        Unauthorized,
        Forbidden,
        TooEarly,
        TooManyRequests,
        OperationFailed,
        Refused,
        StaleEpoch,
        Needless,
        Unavailable,
        TimedOut,
        Declined,
        MeasurementVoid,
    )
}
