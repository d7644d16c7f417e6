"""What clients send to the API: camelCase on the wire, unknown fields refused.

Answers are documents (see `Operation.to_json`, `control_plane.status`); errors are RFC 9457.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

Reason = Annotated[str, Field(max_length=2000)]


class Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)

    @model_validator(mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        """What databases and UTF-8 cannot hold is refused wherever it is: NUL, half a surrogate."""
        check_storable(value)
        return value


def check_storable(value: Any, depth: int = 20) -> None:
    """Raises `ValueError`."""
    if depth == 0:
        raise ValueError("it is nested too deeply")
    if isinstance(value, str):
        value.encode("utf-8")
        if "\0" in value:
            raise ValueError("text must not contain NUL")
    elif isinstance(value, dict):
        for key, each in value.items():
            check_storable(key, depth)
            check_storable(each, depth - 1)
    elif isinstance(value, list):
        for each in value:
            check_storable(each, depth - 1)


class PlanRequest(Wire):
    """`args` are the planner's own, such as {"target": "s1"}."""

    args: dict[str, Any] = Field(default_factory=dict)
    reason: Reason = ""


class OperationRequest(PlanRequest):
    """The same `idempotencyKey` again answers with the operation that it first created.

    With `expectGeneration` it is refused when the platform's generation is another by now.
    """

    verb: str
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=200)
    expect_generation: int | None = None


class ReasonRequest(Wire):
    """Why an operator aborts an operation or acknowledges a failover."""

    reason: Reason = ""


class LettersRequest(ReasonRequest):
    """Dead letters of a region (None: of the one that serves) that are replayed or dropped."""

    region: str | None = None
    ids: list[str] = Field(min_length=1, max_length=1000)


class TokenRequest(ReasonRequest):
    """`lifetimeSeconds`: how long the token is good, at most ten years; None: until revoked."""

    name: str
    role: str
    lifetime_seconds: int | None = Field(default=None, ge=60, le=10 * 366 * 86400)
