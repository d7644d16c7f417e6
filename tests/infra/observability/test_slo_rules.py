"""Pages, tickets and what is left of a budget, as Prometheus itself evaluates the rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from infra.slo import PERIOD_SECONDS
from tests.infra.observability.test_alerts import COMPLETED, FAILED
from tests.infra.observability.tools import monitoring, run, write

# Samples every 15 s for two hours, of which the last are looked at.
SAMPLES, HOURS = 481, 2
TARGET = next(slo.target for slo in monitoring().slos if slo.name == "errors")


def case(burning: float, *, page: bool, ticket: bool) -> dict[str, Any]:
    """Errors burn so many times too fast. What is left of the budget: two hours of 30 days."""
    failed = 1500 * burning * (1 - TARGET)
    left = 1 - burning * HOURS * 3600 / PERIOD_SECONDS
    return {
        "interval": "15s",
        "name": f"a burn of {burning:g}",
        "input_series": [
            {"series": COMPLETED, "values": f"0+1500x{SAMPLES}"},
            {"series": FAILED, "values": f"0+{failed:.6f}x{SAMPLES}"},
        ],
        "promql_expr_test": [
            expected(_firing("SloBurnPage"), page),
            expected(_firing("SloBurnTicket"), ticket),
            expected(
                f'abs(regionctl:slo_budget_left:ratio{{slo="errors"}} - {left!r}) < bool 0.0005',
                True,
                '{slo="errors"}',
            ),
        ],
    }


def _firing(alert: str) -> str:
    series = f'ALERTS{{alertname="{alert}",alertstate="firing",slo="errors"}}'
    return f"(count({series}) or vector(0)) > bool 0"


def expected(expression: str, holds: bool, labels: str = "{}") -> dict[str, Any]:
    samples = [{"labels": labels, "value": int(holds)}]
    return {"expr": expression, "eval_time": f"{HOURS}h", "exp_samples": samples}


def test_a_fast_burn_pages_a_slow_one_writes_a_ticket_and_each_spends_for_the_time_watched(
    tmp_path: Path,
) -> None:
    write(tmp_path, monitoring())
    document = {
        "rule_files": ["rules/slo.yml"],
        "evaluation_interval": "15s",
        "tests": [
            case(0.5, page=False, ticket=False),
            case(4.0, page=False, ticket=True),
            case(20.0, page=True, ticket=True),
        ],
    }
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(document, sort_keys=False))
    run("promtool", "test", "rules", "tests.yml", folder=tmp_path)
