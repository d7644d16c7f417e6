"""A drill on servers that only pretend: whatever it says of time or loss means nothing. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

JSON = dict[str, Any]

# How a platform is that can be measured (`infra.provider.Provider.mode`).
APPLIED = "applied"
OF_A_REPEAT: Mapping[str, Any] = {
    "verdict": "void",
    "because": [],
    "rtoSeconds": None,
    "rtoByKind": {},
    "longestWriteGapSeconds": None,
    "lossSeconds": None,
    "phases": [],
    "figures": {},
}


def untimed(judged: Mapping[str, Any]) -> JSON:
    """A report's judgement without recovery times and losses, and never better than void."""
    return {
        **judged,
        "verdict": "void",
        "because": ["emulated: nothing here was measured"],
        "phases": [],
        "objectives": [
            {**each, "measuredSeconds": None, "met": False, "because": "emulated"}
            for each in judged["objectives"]
        ],
        "ledger": {**judged["ledger"], "lossSeconds": None},
        "repeats": [{**each, **OF_A_REPEAT} for each in judged["repeats"]],
        "distribution": {"rtoSeconds": dict.fromkeys(("p50", "p95", "max"))},
    }
