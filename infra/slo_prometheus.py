"""SLOs as rules of Prometheus: what was bad over each window, and alerts on burning budgets. Pure.

Everything is made from what the edge counts (Envoy's `/stats/prometheus`), which also sees what no
region answered. For an SLO `errors` and a window of five minutes:

    regionctl:slo_bad:ratio_rate5m{slo="errors"}     the share that was bad
    regionctl:slo_target:ratio{slo="errors"}         the share that must be good
    regionctl:slo_budget_left:ratio{slo="errors"}    1 untouched, 0 spent, less when overspent;
                                                     time that nobody watched spends nothing

An alert `SloBurnPage` or `SloBurnTicket` with the label `slo` fires when both windows of one of
its pairs burn (SRE workbook, chapter 5). Envoy times in buckets: a limit between two bounds is
taken as the lower one, so that nothing slow passes for quick.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from infra.slo import Alert, Slo, duration
from infra.traffic import BOUNDS

JSON = dict[str, Any]

EDGE = 'envoy_http_conn_manager_prefix="edge"'
REQUESTS = f"envoy_http_downstream_rq_completed{{{EDGE}}}"
ERRORS = f'envoy_http_downstream_rq_xx{{{EDGE},envoy_response_code_class="5"}}'
TIMED = f"envoy_http_downstream_rq_time_count{{{EDGE}}}"
SCRAPE_SECONDS = 15.0
# A rate needs several scrapes, and one of them may be missing.
SCRAPES = 4
# How finely it is counted for how long somebody has looked.
WATCH_SECONDS = 60.0
# Severity of the SLO → name of the alert, severity by which Alertmanager routes it.
ALERTS = {"page": ("SloBurnPage", "critical"), "ticket": ("SloBurnTicket", "warning")}
RUNBOOK = "service-outage"


def to_yaml(slos: Iterable[Slo], scrape_seconds: float = SCRAPE_SECONDS) -> str:
    """The rule file; `promtool check rules` accepts it."""
    return yaml.safe_dump(rules(slos, scrape_seconds), sort_keys=False, width=100)


def rules(slos: Iterable[Slo], scrape_seconds: float = SCRAPE_SECONDS) -> JSON:
    """The rule file as data: a group of recordings and one of alerts for each SLO."""
    groups: list[JSON] = []
    for slo in slos:
        recorded = _recordings(slo, scrape_seconds)
        groups.append({"name": f"regionctl-slo-{slo.name}", "rules": recorded})
        if alerts := _alerts(slo):
            groups.append({"name": f"regionctl-slo-{slo.name}-alerts", "rules": alerts})
    return {"groups": groups}


def windows(slo: Slo) -> list[float]:
    """Every window (seconds) that is looked at, ascending; the last one is the budget's."""
    looked = {each for alert in slo.alerts for each in (alert.long_seconds, alert.short_seconds)}
    return sorted({*looked, slo.window_seconds})


def bad(slo: Slo, window: str, scrape_seconds: float = SCRAPE_SECONDS) -> str:
    """PromQL of the share that was bad within the window."""
    if slo.sli == "latency":
        quick = f'envoy_http_downstream_rq_time_bucket{{{EDGE},le="{_bound(slo.milliseconds)}"}}'
        return f"1 - {_rate(quick, window)} / {_rate(TIMED, window)}"
    if slo.sli == "availability":
        return f'avg_over_time(regionctl:slo_slice_bad:bool{{slo="{slo.name}"}}[{window}])'
    return f"({_rate(ERRORS, window)} or vector(0)) / {_rate(REQUESTS, window)}"


def _rate(series: str, window: str) -> str:
    return f"sum(rate({series}[{window}]))"


def _bound(milliseconds: float) -> str:
    """The bucket of Envoy's that ends at the limit or before it."""
    return f"{max([each for each in BOUNDS if each <= milliseconds], default=BOUNDS[0]):g}"


def _recordings(slo: Slo, scrape_seconds: float) -> list[JSON]:
    found = []
    if slo.sli == "availability":
        found.append(_recording("regionctl:slo_slice_bad:bool", _slice(slo, scrape_seconds), slo))
    found += [
        _recording(_name(seconds), bad(slo, duration(seconds), scrape_seconds), slo)
        for seconds in windows(slo)
    ]
    found.append(_recording("regionctl:slo_target:ratio", f"vector({slo.target!r})", slo))
    whole = f'{_name(slo.window_seconds)}{{slo="{slo.name}"}}'
    left = f"1 - {whole} / {1 - slo.target:.12g} * {_watched(slo)}"
    found.append(_recording("regionctl:slo_budget_left:ratio", left, slo))
    return found


def _watched(slo: Slo) -> str:
    """PromQL of the share of the period in which somebody looked: only that can have spent some of
    the budget. As many evaluations as there were, each for the time from one to the next."""
    looked = f'count_over_time(regionctl:slo_target:ratio{{slo="{slo.name}"}}'
    period = duration(slo.window_seconds)
    return f"{looked}[{period}:{duration(WATCH_SECONDS)}]) / {slo.window_seconds / WATCH_SECONDS:g}"


def _slice(slo: Slo, scrape_seconds: float) -> str:
    """1 while a slice is bad, 0 while it is good, nothing while nobody asks."""
    recent = duration(max(slo.slice_seconds, SCRAPES * scrape_seconds))
    share = f"({_rate(ERRORS, recent)} or vector(0)) / {_rate(REQUESTS, recent)}"
    return f"({share} > bool {1 - slo.slice_target:.12g}) and {_rate(REQUESTS, recent)} > 0"


def _recording(name: str, expression: str, slo: Slo) -> JSON:
    return {"record": name, "expr": expression, "labels": {"slo": slo.name}}


def _name(seconds: float) -> str:
    return f"regionctl:slo_bad:ratio_rate{duration(seconds)}"


def _alerts(slo: Slo) -> list[JSON]:
    found = []
    for severity, (name, routed) in ALERTS.items():
        mine = [alert for alert in slo.alerts if alert.severity == severity]
        if not mine:
            continue
        pairs = "; ".join(
            f"{alert.factor:g} over {duration(alert.long_seconds)} and "
            f"{duration(alert.short_seconds)}"
            for alert in mine
        )
        found.append(
            {
                "alert": name,
                "expr": "\nor\n".join(_burns(slo, alert) for alert in mine),
                "labels": {"severity": routed, "slo": slo.name, "service": slo.service},
                "annotations": {
                    "summary": f"{slo.name}: the error budget of {duration(slo.window_seconds)} "
                    "is burning too fast",
                    "description": f"{slo.description or slo.name}: {100 * slo.target:g} % must be "
                    f"good. Fires at a burn of {pairs}.",
                    "runbook": RUNBOOK,
                    "command": "regionctl slo check",
                },
            }
        )
    return found


def _burns(slo: Slo, alert: Alert) -> str:
    limit = f"{alert.factor * (1 - slo.target):.12g}"
    long, short = (
        f'{_name(seconds)}{{slo="{slo.name}"}} > {limit}'
        for seconds in (alert.long_seconds, alert.short_seconds)
    )
    return f"({long} and {short})"
