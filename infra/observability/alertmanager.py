"""alertmanager.yml: critical alerts to PagerDuty, the others to Slack, all to a webhook. Pure.

Where nobody is named, alerts go nowhere but to Alertmanager's own page. Secrets are read from files
by Alertmanager itself; none is in this document.
"""

from __future__ import annotations

from typing import Any

from infra.observability.model import Pace, Receivers
from infra.slo import duration

JSON = dict[str, Any]
PAGE, CHAT, WEBHOOK, NOBODY = "pagerduty", "slack", "webhook", "nobody"

# Several alerts in one message need not have one summary.
TITLE = (
    "{{ with .CommonAnnotations.summary }}{{ . }}"
    "{{ else }}{{ .GroupLabels.alertname }} {{ .GroupLabels.region }}{{ end }}"
)
TEXT = (
    "{{ range .Alerts }}{{ .Annotations.summary }}: {{ .Annotations.description }}\n"
    "Next: {{ .Annotations.command }}\n{{ end }}"
)


def document(pace: Pace, receivers: Receivers) -> JSON:
    """One route to each receiver that there is; a region that is down keeps the alerts about its
    single instances quiet."""
    return {
        "route": {
            "receiver": NOBODY,
            "group_by": ["alertname", "region"],
            "group_wait": duration(pace.group),
            "group_interval": duration(pace.group),
            "repeat_interval": duration(pace.again),
            "routes": _routes(receivers),
        },
        "inhibit_rules": [
            _quiet("RegionDown", "InstanceDown|ServiceDown"),
            _quiet("ServiceDown", "InstanceDown", "component"),
        ],
        "receivers": [{"name": NOBODY}, *_receivers(receivers)],
    }


def _routes(receivers: Receivers) -> list[JSON]:
    critical, others = 'severity="critical"', 'severity!="critical"'
    found = []
    if receivers.webhook_url:
        found.append({"receiver": WEBHOOK, "continue": True})
    if receivers.pagerduty_key_file:
        found.append({"receiver": PAGE, "matchers": [critical]})
    if receivers.slack_url_file:
        # Without a pager the chat is better than silence.
        only = [others] if receivers.pagerduty_key_file else []
        found.append({"receiver": CHAT, **({"matchers": only} if only else {})})
    return found


def _quiet(cause: str, effects: str, *same: str) -> JSON:
    return {
        "source_matchers": [f'alertname="{cause}"'],
        "target_matchers": [f'alertname=~"{effects}"'],
        "equal": ["region", *same],
    }


def _receivers(receivers: Receivers) -> list[JSON]:
    found: list[JSON] = []
    if receivers.webhook_url:
        hook = {"url": receivers.webhook_url, "send_resolved": True}
        found.append({"name": WEBHOOK, "webhook_configs": [hook]})
    if receivers.pagerduty_key_file:
        page = {
            "routing_key_file": receivers.pagerduty_key_file,
            "description": TITLE,
            "severity": "{{ .CommonLabels.severity }}",
            "details": {"alerts": TEXT, "runbook": "{{ .CommonAnnotations.runbook }}"},
        }
        found.append({"name": PAGE, "pagerduty_configs": [page]})
    if receivers.slack_url_file:
        chat = {
            "api_url_file": receivers.slack_url_file,
            "channel": receivers.slack_channel,
            "send_resolved": True,
            "title": "{{ .Status }}: " + TITLE,
            "text": TEXT,
        }
        found.append({"name": CHAT, "slack_configs": [chat]})
    return found
