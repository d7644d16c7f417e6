"""The resources of a stack as the policies see them. Pure."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.aws.plan import COMPUTED

Violation = tuple[str, str]
"""(URN, what is wrong with it)."""


@dataclass(frozen=True)
class Resource:
    """`needs`: input → URNs of the resources that its value comes from."""

    urn: str
    type: str
    name: str
    props: Mapping[str, Any]
    provider: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    protect: bool = False

    @property
    def region(self) -> str:
        return str(self.props.get("region") or self.provider.get("region") or "")

    def on(self, key: str) -> bool:
        """Whether a switch is on, or will only be known later."""
        return self.props.get(key) in (True, COMPUTED)

    def has(self, key: str) -> bool:
        return self.props.get(key) not in (None, "", [], {})


class World:
    """All the resources of a stack, by type."""

    def __init__(self, resources: Sequence[Resource]) -> None:
        self.resources = resources
        self._by_type: dict[str, list[Resource]] = defaultdict(list)
        for resource in resources:
            self._by_type[resource.type].append(resource)

    def of(self, *types: str) -> Iterator[Resource]:
        for type in types:
            yield from self._by_type.get(type, ())

    def about(self, resource: Resource, type: str, key: str) -> Iterator[Resource]:
        """The resources of `type` that are about `resource` by their input `key`."""
        names = {resource.props.get("bucket"), resource.props.get("name")} - {None, COMPUTED}
        for each in self.of(type):
            if resource.urn in each.needs.get(key, ()) or each.props.get(key) in names:
                yield each


def document(value: Any) -> Mapping[str, Any]:
    """A policy document that may be text; empty when it is not known yet."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, Mapping) else {}


def statements(value: Any) -> list[Mapping[str, Any]]:
    found = document(value).get("Statement", ())
    return [found] if isinstance(found, Mapping) else list(found)


def listed(value: Any) -> list[str]:
    """One text or many, as policy documents have them."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(each) for each in value]
