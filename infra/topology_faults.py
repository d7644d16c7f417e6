"""What is wrong with a topology, told with file, line, field and what is allowed there."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from runtime.errors import Invalid

Location = Sequence[int | str]

URL = r"^https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?$"
ORIGIN = r"^https?://[A-Za-z0-9.:\[\]-]+$"
HOST_PORT = r"^[A-Za-z0-9.-]+:[0-9]{1,5}$"
ABSOLUTE = r"^/[A-Za-z0-9._/@+,=~-]+$"
# For AWS.
VERSION = r"^[0-9]{1,2}\.[0-9]{1,2}$"
INSTANCE_CLASS = r"^db\.[a-z0-9]+\.[a-z0-9]+$"
NODE_TYPE = r"^cache\.[a-z0-9]+\.[a-z0-9]+$"
EMAIL = r"^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+$"
STEM = r"^[a-z][a-z0-9]{1,10}$"
ENVIRONMENT = r"^[a-z][a-z0-9]{1,6}$"
TAG = r"^[A-Za-z0-9 ._:/=+@-]{1,128}$"
DOMAIN = r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}$"
IMAGE_TAG = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"
DIGEST = r"^sha256:[0-9a-f]{64}$"
REGION = r"^[a-z]{2}-[a-z]+-[0-9]$"
PATTERNS = {
    VERSION: "a version such as 18.6, in quotes",
    INSTANCE_CLASS: "a class of database server such as db.r6g.large",
    NODE_TYPE: "a type of cache node such as cache.r7g.large",
    EMAIL: "an e-mail address",
    STEM: "a lower-case letter, then lower-case letters and digits, 11 characters at most",
    ENVIRONMENT: "a lower-case letter, then lower-case letters and digits, 7 characters at most",
    TAG: "1 to 128 letters, digits, spaces and . _ : / = + @ -",
    DOMAIN: "a domain in lower case such as shop.example.com",
    IMAGE_TAG: "the tag of an image such as 1.4.2",
    DIGEST: "sha256: and 64 hexadecimal digits",
    URL: "an address such as https://host:8443/path, without user, query and fragment",
    ORIGIN: "a web origin such as https://shop.example.com, without a path",
    HOST_PORT: "host:port, such as mail.example.com:587",
    ABSOLUTE: "the whole path of a file, beginning with /",
    "^[a-z]$": "one lower-case letter, such as a",
    "^[a-z][a-z0-9-]{0,30}$": (
        "a lower-case letter, then lower-case letters, digits and hyphens, 31 characters at most"
    ),
}
KINDS = {
    "string": "text",
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "list": "a list, such as [a, b]",
}


def not_yaml(error: yaml.YAMLError, source: str, example: str) -> Invalid:
    """The document cannot be read at all."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
    return Invalid(f"{where}: this is not YAML: {problem or error}.", hint=_mend(source, example))


def explain(
    error: ValidationError,
    model: type[BaseModel],
    root: yaml.Node | None,
    source: str,
    example: str,
) -> Invalid:
    """One line for each fault."""
    lines = []
    for fault in error.errors():
        place: Location = fault["loc"]
        said = _said(fault, model)
        if not place and fault["type"] == "value_error":
            # A rule about the whole document begins with the field that it is about.
            place = (said.partition(":")[0],)
            said = said.partition(": ")[2]
        where = ".".join(str(part) for part in place) or "the whole document"
        lines.append(f"{source}:{_line(root, place)}: {where}: {said}")
    return Invalid("\n".join(lines), hint=_mend(source, example))


def _mend(source: str, example: str) -> str:
    return f"Mend {source} and run the command again; a complete example: {example}"


def _said(fault: Any, model: type[BaseModel]) -> str:
    """What is allowed, and what is there instead."""
    kind, given = str(fault["type"]), fault["input"]
    limits: Mapping[str, Any] = fault.get("ctx", {})
    here = f"; here it is {given!r}" if isinstance(given, str | int | float) else ""
    match kind:
        case "missing":
            return "this field is missing"
        case "extra_forbidden":
            return _unknown(str(fault["loc"][-1]), _fields(model, fault["loc"][:-1]))
        case "value_error":
            return str(limits["error"])
        case "literal_error":
            return f"must be {limits['expected']}{here}"
        case "string_pattern_mismatch":
            return f"must be {PATTERNS[limits['pattern']]}{here}"
        case "greater_than":
            return f"must be more than {limits['gt']:g}{here}"
        case "greater_than_equal":
            return f"must be {limits['ge']:g} or more{here}"
        case "less_than_equal":
            return f"must be {limits['le']:g} or less{here}"
        case "too_short":
            return "must have at least one entry"
        case "model_type" | "model_attributes_type":
            there = "nothing is here" if given is None else f"here it is {_short(given)}"
            return f"must have the fields {', '.join(_fields(model, fault['loc']))}; {there}"
    return f"must be {KINDS.get(kind.partition('_')[0], fault['msg'])}{here}"


def _short(given: object) -> str:
    return "a list" if isinstance(given, list) else repr(given)[:40]


def _unknown(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"there is no such field; {meant}Known here: {', '.join(known)}"


def _fields(model: type[BaseModel], location: Location) -> list[str]:
    """The names of the fields at `location` of a document."""
    for part in location:
        for field in model.model_fields.values():
            if field.alias == part:
                model = _model(field.annotation) or model
    return [str(field.alias) for field in model.model_fields.values()]


def _model(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation such as `Annotated[list[Model], ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model(inner) for inner in get_args(annotation))
    return next((model for model in found if model is not None), None)


def _line(node: yaml.Node | None, location: Location) -> int:
    """The 1-based line of the deepest node on the way to `location` that exists."""
    line = 1
    for part in location:
        if node is None:
            break
        line = node.start_mark.line + 1
        following: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == part:
                    line, following = key.start_mark.line + 1, value
        elif isinstance(node, yaml.SequenceNode) and part in range(len(node.value)):
            following = node.value[int(part)]
        node = following
    return line if node is None else node.start_mark.line + 1
