"""Checks what clients send as arguments of a verb against the planner's own signature.

So a planner may rely on its annotations, and a new one needs no second list of its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from inspect import Parameter, signature
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from control_plane.plan import Plan
from runtime.errors import Invalid

NOT_SENT = frozenset({"facts"})
"""What the control plane finds out itself."""


def check(verb: str, planner: Callable[..., Plan], sent: Mapping[str, Any]) -> dict[str, Any]:
    """What the planner takes of `sent`. Raises `Invalid`, naming what is missing or wrong."""
    try:
        checked = model_of(planner).model_validate(dict(sent))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise Invalid(f"{verb} cannot be planned: {'; '.join(faults)}.") from error
    return {name: getattr(checked, name) for name in checked.model_fields_set}


@cache
def model_of(planner: Callable[..., Plan]) -> type[BaseModel]:
    """Its keyword arguments as a model; numbers are finite, and no text counts as a number."""
    hints = get_type_hints(planner)
    fields: dict[str, Any] = {
        name: (hints[name], ... if parameter.default is Parameter.empty else parameter.default)
        for name, parameter in signature(planner).parameters.items()
        if parameter.kind is Parameter.KEYWORD_ONLY and name not in NOT_SENT
    }
    strict = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore")
    model: type[BaseModel] = create_model("Arguments", __config__=strict, **fields)
    return model
