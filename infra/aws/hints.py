"""The type hints of pulumi-aws as a small schema. Imports pulumi: only for child processes.

The wheel ships no schema, and the SDK itself checks neither keys of dictionaries, nor scalars, nor
enums (what it accepts is in the reference study). Its type hints know all three. They are written
down here for those parts only that the recorded inputs touch, so that the validator is pure and
needs no pulumi: `{"types": {NAME: {"properties": {KEY: TYPE}, "required": [KEY]}}}`, where a TYPE
is `{"kind": "string" | "number" | "boolean" | "any"}`, `{"kind": "array", "of": TYPE}`,
`{"kind": "map", "of": TYPE}` or `{"kind": "object", "type": NAME}`, the last with `orText` when a
JSON text will do. A string may have `enum` (closed) or `documented` (what its documentation lists).
"""

from __future__ import annotations

import enum
import inspect
import re
import sys
from collections.abc import Awaitable, Mapping, Sequence
from collections.abc import Mapping as MappingOrigin
from collections.abc import Sequence as SequenceOrigin
from functools import cache
from importlib import import_module
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pulumi import Output
from pulumi._types import (
    input_type_py_to_pulumi_names,
    input_type_types,
    is_input_type,
)

JSON = dict[str, Any]
OPEN_ENUMS = frozenset({"InstanceType"})
"""Lists of instance classes that lag behind AWS; the catalogue knows them by region."""

_LISTS = re.compile(
    r"(?:valid|possible|allowed|supported) (?:values?|options?)(?: (?:are|is|include|includes))?:? "
    r"((?:`[^`]+`(?: \([^)]*\))?(?:, (?:and |or )?| and | or )?)+)",
    re.IGNORECASE,
)


def schema(resources: Sequence[Mapping[str, Any]]) -> JSON:
    """What the types of these resources allow, as far as their inputs reach into them.

    Resources that are no AWS resources (components, providers, the stack) are passed over; a type
    without hints is listed under `unknown`.
    """
    types: dict[str, JSON] = {}
    unknown: set[str] = set()
    for resource in resources:
        token = resource["type"]
        if not is_aws(token):
            continue
        cls = _arguments(token)
        if cls is None:
            unknown.add(token)
        else:
            _visit(token, cls, resource["inputs"], types)
    return {"types": dict(sorted(types.items())), "unknown": sorted(unknown)}


def is_aws(token: str) -> bool:
    return token.startswith("aws:") and token.count(":") == 2


@cache
def _arguments(token: str) -> type | None:
    """The `…Args` class of "aws:rds/cluster:Cluster"; None when there is none."""
    _, module, name = token.split(":")
    try:
        package = import_module(f"pulumi_aws.{module.partition('/')[0]}")
    except ImportError:
        return None
    home = sys.modules.get(getattr(getattr(package, name, None), "__module__", ""))
    # `…InitArgs` where a nested type of another resource has the shorter name already.
    found = getattr(home, f"{name}InitArgs", None) or getattr(home, f"{name}Args", None)
    return found if isinstance(found, type) else None


def _visit(name: str, cls: type, value: Any, types: dict[str, JSON]) -> None:
    if name not in types:
        types[name] = _describe(cls)
    for key, hint in _hints(cls).items():
        if isinstance(value, Mapping) and key in value:
            _descend(hint, value[key], types)


def _descend(hint: Any, value: Any, types: dict[str, JSON]) -> None:
    bare = _bare(hint)
    if isinstance(bare, type) and is_input_type(bare):
        _visit(_name(bare), bare, value, types)
    elif get_origin(bare) is SequenceOrigin and isinstance(value, list):
        for each in value:
            _descend(get_args(bare)[0], each, types)
    elif get_origin(bare) is MappingOrigin and isinstance(value, Mapping):
        for each in value.values():
            _descend(get_args(bare)[1], each, types)


@cache
def _hints(cls: type) -> dict[str, Any]:
    return dict(input_type_types(cls))


def _describe(cls: type) -> JSON:
    """All the keys of one class, one level deep."""
    names = input_type_py_to_pulumi_names(cls)
    parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    required = sorted(
        names.get(name, name)
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and name not in ("self", "__self__")
    )
    python = {key: name for name, key in names.items()}
    properties = {
        key: _type(hint) | _documented(cls, python.get(key, key), hint)
        for key, hint in sorted(_hints(cls).items())
    }
    return {"properties": properties, "required": required}


def _documented(cls: type, attribute: str, hint: Any) -> JSON:
    """The values that the documentation of a string without an enum lists, if it does."""
    text = getattr(getattr(cls, attribute, None), "__doc__", None) or ""
    flat = " ".join(text.split())
    listed = _LISTS.search(flat)
    if _type(hint) != {"kind": "string"} or listed is None:
        return {}
    values = re.findall(r"`([^`]+)`", listed[1])
    plain = [value.strip('"') for value in values]
    closed = len(plain) > 1 and all(re.fullmatch(r"[\w.:+-]+", value) for value in plain)
    if not closed or any("XX" in value for value in plain) or "also valid" in flat:
        return {}
    return {"documented": plain}


def _type(hint: Any) -> JSON:
    bare = _bare(hint)
    values = _enum(hint)
    if values is not None:
        return {"kind": "string", "enum": values} if values else {"kind": "string"}
    if get_origin(bare) is SequenceOrigin:
        return {"kind": "array", "of": _type(get_args(bare)[0])}
    if get_origin(bare) is MappingOrigin:
        return {"kind": "map", "of": _type(get_args(bare)[1])}
    if isinstance(bare, type) and is_input_type(bare):
        text = {"orText": True} if str in _members(hint) else {}
        return {"kind": "object", "type": _name(bare), **text}
    simple = {str: "string", bool: "boolean", int: "number", float: "number"}
    return {"kind": simple.get(bare, "any") if isinstance(bare, type) else "any"}


def _enum(hint: Any) -> list[str] | None:
    """The values of an enum in `hint`; an empty list for one that is left open; None: no enum."""
    for member in _members(hint):
        if isinstance(member, type) and issubclass(member, enum.Enum):
            if member.__name__ in OPEN_ENUMS:
                return []
            return sorted(str(each.value) for each in member)
    return None


def _bare(hint: Any) -> Any:
    """The type itself, without Output, Awaitable, None and the dictionary twin of a class."""
    members = [member for member in _members(hint) if not _is_enum(member)]
    classes = [each for each in members if isinstance(each, type) and is_input_type(each)]
    chosen = classes or members
    return chosen[0] if chosen else Any


def _members(hint: Any) -> list[Any]:
    if get_origin(hint) not in (Union, UnionType):
        return [hint]
    found: list[Any] = []
    for member in get_args(hint):
        if member is type(None) or get_origin(member) in (Awaitable, Output):
            continue
        found += _members(member)
    return found


def _is_enum(member: Any) -> bool:
    return isinstance(member, type) and issubclass(member, enum.Enum)


def _name(cls: type) -> str:
    service = cls.__module__.split(".")[1] if "." in cls.__module__ else ""
    return f"{service}/{cls.__name__.removesuffix('Args')}"
