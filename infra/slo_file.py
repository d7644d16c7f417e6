"""An SLO file as it is written: read, checked whole, told what is wrong with it. Pure.

It has a document of kind SLO for each objective, or one of kind SloFile whose `items` they are.
What of OpenSLO v1 is not known here (composite SLOs, data sources, alert policies) is refused
with its place, not passed over: an objective that nobody looks at is worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from infra import topology_faults
from infra.slo import PERIOD_SECONDS, Alert, Severity, Slo, impossible, workbook
from infra.topology_policies import Wire
from runtime.errors import Invalid

EXAMPLE = "regionctl slo show -o yaml"
DURATION = r"^[1-9][0-9]{0,6}[smhdw]$"
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
Duration = Annotated[str, Field(pattern=DURATION)]
topology_faults.PATTERNS[DURATION] = "a time such as 30s, 5m, 6h or 30d"


class _Query(Wire):
    metric: Literal["requests", "errors", "latency"]


class _Source(Wire):
    type: Literal["Regionctl"]
    spec: _Query


class _Metric(Wire):
    metric_source: _Source


class _Ratio(Wire):
    counter: bool = True
    bad: _Metric
    total: _Metric


class _Indicator(Wire):
    ratio_metric: _Ratio | None = None
    threshold_metric: _Metric | None = None

    @model_validator(mode="after")
    def _one(self) -> _Indicator:
        if (self.ratio_metric is None) == (self.threshold_metric is None):
            raise ValueError("spec: an indicator has either ratioMetric or thresholdMetric")
        return self


class _Metadata(Wire):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
    display_name: str | None = None
    labels: dict[str, Any] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class _NamedIndicator(Wire):
    metadata: _Metadata | None = None
    spec: _Indicator


class _Window(Wire):
    duration: Duration
    is_rolling: Literal[True] = True


class _Objective(Wire):
    display_name: str | None = None
    target: Annotated[float, Field(gt=0, lt=1)] | None = None
    target_percent: Annotated[float, Field(gt=0, lt=100)] | None = None
    op: Literal["lte"] | None = None
    value: Annotated[float, Field(gt=0)] | None = None
    time_slice_target: Annotated[float, Field(gt=0, le=1)] | None = None
    time_slice_window: Duration | None = None


class _Spec(Wire):
    description: str = ""
    service: str
    indicator: _NamedIndicator
    time_window: Annotated[list[_Window], Field(min_length=1, max_length=1)]
    budgeting_method: Literal["Occurrences", "Timeslices"]
    objectives: Annotated[list[_Objective], Field(min_length=1, max_length=1)]


class _Burn(Wire):
    severity: Severity
    factor: Annotated[float, Field(gt=0)]
    long: Duration
    short: Duration


class _Own(Wire):
    """`gates` are those of load runs, which read them themselves."""

    gates: list[Any] = Field(default_factory=list)
    burn: list[_Burn] | None = None


class _Document(Wire):
    api_version: Literal["openslo/v1"]
    kind: Literal["SLO"]
    metadata: _Metadata
    spec: _Spec
    own: _Own = Field(default_factory=_Own, alias="x-regionctl")

    @model_validator(mode="after")
    def _fits(self) -> _Document:
        spec, objective = self.spec, self.spec.objectives[0]
        if (objective.target is None) == (objective.target_percent is None):
            raise ValueError("spec: an objective has either target or targetPercent")
        timed = spec.indicator.spec.threshold_metric is not None
        if timed != (objective.value is not None) or timed != (objective.op is not None):
            raise ValueError(
                "spec: op and value belong to an objective of a thresholdMetric, and to no other"
            )
        sliced = spec.budgeting_method == "Timeslices"
        parts = (objective.time_slice_target, objective.time_slice_window)
        if sliced != (None not in parts) or (not sliced and parts != (None, None)):
            raise ValueError(
                "spec: timeSliceTarget and timeSliceWindow belong to budgetingMethod Timeslices, "
                "and to no other"
            )
        if timed and sliced:
            raise ValueError("spec: a thresholdMetric is budgeted by Occurrences")
        if any(seconds(each.short) >= seconds(each.long) for each in self.own.burn or ()):
            raise ValueError("x-regionctl: a burn's short window is shorter than its long one")
        return self

    def slo(self) -> Slo:
        spec, objective = self.spec, self.spec.objectives[0]
        target = objective.target
        if target is None:
            target = round((objective.target_percent or 0.0) / 100, 12)
        window = seconds(spec.time_window[0].duration)
        alerts = workbook(target, window)
        if self.own.burn is not None:
            alerts = tuple(
                Alert(each.severity, each.factor, seconds(each.long), seconds(each.short))
                for each in self.own.burn
            )
        timed = spec.indicator.spec.threshold_metric is not None
        sliced = objective.time_slice_window
        return Slo(
            name=self.metadata.name,
            service=spec.service,
            sli="latency" if timed else "availability" if sliced else "errors",
            target=target,
            alerts=alerts,
            window_seconds=window,
            milliseconds=objective.value or 0.0,
            **({"slice_seconds": seconds(sliced)} if sliced else {}),
            slice_target=objective.time_slice_target or 1.0,
            description=spec.description,
        )


def seconds(written: str) -> float:
    """Of a time that matches DURATION."""
    match = re.fullmatch(r"(\d+)([smhdw])", written)
    assert match is not None
    return float(match[1]) * SECONDS[match[2]]


def parse(text: str, source: str) -> tuple[Slo, ...]:
    """The SLOs of a file. Raises `Invalid` with everything that is wrong, one a line."""
    try:
        documents = [each for each in yaml.safe_load_all(text) if each is not None]
        roots = [each for each in yaml.compose_all(text, Loader=yaml.SafeLoader) if _full(each)]
        documents, roots = _unpacked(documents, roots)
    except yaml.YAMLError as error:
        raise topology_faults.not_yaml(error, source, EXAMPLE) from error
    found: list[Slo] = []
    faults: list[str] = []
    for document, root in zip(documents, roots, strict=True):
        try:
            found.append(_Document.model_validate(document).slo())
        except ValidationError as error:
            told = topology_faults.explain(error, _Document, root, source, EXAMPLE)
            faults += told.detail.splitlines()
    faults += _together(found, source, some=bool(documents))
    if faults:
        raise Invalid("\n".join(faults), hint=f"A complete example: {EXAMPLE}")
    return tuple(found)


def _unpacked(documents: list[Any], roots: list[Any]) -> tuple[list[Any], list[Any]]:
    """The documents and their nodes; of a SloFile its items in its place."""
    found: tuple[list[Any], list[Any]] = [], []
    for document, root in zip(documents, roots, strict=True):
        items = document.get("items") if isinstance(document, dict) else None
        if isinstance(items, list) and document.get("kind") == "SloFile":
            nodes = next(value for key, value in root.value if key.value == "items")
            found[0].extend(items)
            found[1].extend(nodes.value)
        else:
            found[0].append(document)
            found[1].append(root)
    return found


def _full(node: Any) -> bool:
    return node is not None and node.tag != "tag:yaml.org,2002:null"


def _together(slos: Sequence[Slo], source: str, *, some: bool) -> list[str]:
    """What no document shows by itself."""
    names = [slo.name for slo in slos]
    twice = sorted({name for name in names if names.count(name) > 1})
    return [
        *([] if some else [f"{source}: there is no SLO in it"]),
        *(f"{source}: two SLOs are called {name}" for name in twice),
        *(f"{source}: {each}" for slo in slos for each in impossible(slo)),
        *(
            f"{source}: {slo.name}: the window is longer than {PERIOD_SECONDS / 86_400:g} days, "
            "for which budgets are kept"
            for slo in slos
            if slo.window_seconds > PERIOD_SECONDS
        ),
    ]
