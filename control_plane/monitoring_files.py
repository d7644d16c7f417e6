"""Writes the monitoring files for real use elsewhere: `python -m control_plane.monitoring_files`.

They are about the platform in a state directory, or about one that `up` would make. Prints one line
of JSON: what was written, or a problem.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from control_plane import listen, monitored
from control_plane import settings as environment
from infra.local import monitoring, ports, scaling
from infra.local.layout import Layout
from infra.observability.files import everything
from infra.observability.model import Pace, Receivers
from infra.topology import load
from runtime.errors import Exit, OperationFailed, Problem

SECRETS = "secrets"
USUAL = Receivers(
    pagerduty_key_file="/etc/alertmanager/secrets/pagerduty-key",
    slack_url_file="/etc/alertmanager/secrets/slack-url",
)
README = """\
Monitoring of the regionctl platform {platform}.

  prometheus.yml rules/ targets/   Prometheus 2.42 or newer, in one folder
  alertmanager.yml                 Alertmanager 0.25 or newer
  grafana/                         copy provisioning/ and dashboards/ to /etc/grafana
  otel-collector.yml               OpenTelemetry collector, its contrib distribution
  loki.yml                         Loki 3
  jaeger.yml                       Jaeger 2

Secrets are in none of these files. Put them where the files look for them, mode 0600:

  {token}: regionctl token create prometheus --role viewer
  {pager}: the integration key of PagerDuty (Events API v2)
  {chat}: the incoming webhook of Slack

Check them: promtool check config prometheus.yml; amtool check-config alertmanager.yml
Addresses are those of the platform's own machine; replace them in targets/*.json elsewhere.
"""


def write(wanted: str, root: Path, port_offset: int, out: Path) -> dict[str, Any]:
    """Raises `OperationFailed` when `out` cannot be written to."""
    paths = Layout(root)
    topology = replace(load(wanted), counts=scaling.read(paths))
    table = ports.table(topology, port_offset)
    where = listen.read(paths.control)
    chosen = environment.monitoring_choices()
    receivers = Receivers(
        chosen.pagerduty_key_file or USUAL.pagerduty_key_file,
        chosen.slack_url_file or USUAL.slack_url_file,
        chosen.slack_channel or USUAL.slack_channel,
        chosen.alert_webhook,
    )
    token = f"{SECRETS}/control-plane.token"
    made = monitoring.wanted(
        topology,
        table,
        urlsplit(where.address(table.control)).netloc,
        monitored.access(where, token, f"{SECRETS}/control-plane.pem"),
        receivers,
        Pace.every(chosen.scrape_seconds or Pace.scrape),
    )
    texts = everything(made, topology.service_levels, monitoring.log_files(paths))
    texts["README.txt"] = README.format(
        platform=topology.name,
        token=token,
        pager=receivers.pagerduty_key_file,
        chat=receivers.slack_url_file,
    )
    try:
        for name, text in texts.items():
            path = out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OperationFailed(
            f"Cannot write to {out}: {error.strerror or error}.", hint="Choose another --out."
        ) from error
    return {"directory": str(out), "files": sorted(texts)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the answer, or the problem, as one line of JSON and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m control_plane.monitoring_files")
    parser.add_argument("--topology", required=True)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--port-offset", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args(arguments)
    try:
        answer = write(asked.topology, asked.state_dir.absolute(), asked.port_offset, asked.out)
    except Problem as problem:
        sys.stdout.write(json.dumps(problem.document()) + "\n")
        return int(problem.exit)
    sys.stdout.write(json.dumps(answer) + "\n")
    return int(Exit.OK)


if __name__ == "__main__":
    sys.exit(main())
