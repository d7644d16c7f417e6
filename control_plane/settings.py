"""What the environment says to the control plane: the only reader of it in this package.

REGIONCTL_STATE         the state directory, absolute
REGIONCTL_DATABASE_URL  where operations are recorded; default: SQLite in the state directory
REGIONCTL_PORT          the port that the API listens on, and
REGIONCTL_ADDRESS       its URL for clients of this machine (for its own status)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import Invalid

MONITORING = (
    "prometheus_bin",
    "alertmanager_bin",
    "pagerduty_key_file",
    "slack_url_file",
    "slack_channel",
    "alert_webhook",
    "scrape_seconds",
)


@dataclass(frozen=True)
class Settings:
    state_dir: Path
    database_url: str
    port: int
    url: str | None = None

    @property
    def control_dir(self) -> Path:
        return self.state_dir / "control"

    @property
    def token_file(self) -> Path:
        return self.control_dir / "token"

    @property
    def log_file(self) -> Path:
        """Where the control plane's supervisor keeps what it says."""
        return self.state_dir / "global" / "logs" / "control-plane.log"

    @property
    def address(self) -> str:
        return self.url or f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Choices:
    """What whoever starts the platform chose for it; None: the default."""

    database_url: str | None
    postgres_bin: str | None


@dataclass(frozen=True)
class MonitoringChoices:
    """The same for its monitoring (`up --with monitoring`); "" or None: the default, or nobody.

    REGIONCTL_PROMETHEUS_BIN, REGIONCTL_ALERTMANAGER_BIN   the programs
    REGIONCTL_PAGERDUTY_KEY_FILE, REGIONCTL_SLACK_URL_FILE files with the secrets of who is told
    REGIONCTL_SLACK_CHANNEL, REGIONCTL_ALERT_WEBHOOK       where in Slack; a URL for all alerts
    REGIONCTL_SCRAPE_SECONDS                               how often is looked
    """

    prometheus_bin: str | None
    alertmanager_bin: str | None
    pagerduty_key_file: str
    slack_url_file: str
    slack_channel: str | None
    alert_webhook: str
    scrape_seconds: int | None


def choices(environment: Mapping[str, str] | None = None) -> Choices:
    values = os.environ if environment is None else environment
    return Choices(
        values.get("REGIONCTL_DATABASE_URL") or None, values.get("REGIONCTL_POSTGRES_BIN") or None
    )


def monitoring_choices(environment: Mapping[str, str] | None = None) -> MonitoringChoices:
    """Raises `Invalid` for a number that is none, a file that is not there, or no URL."""
    values = os.environ if environment is None else environment
    given = {name: values.get(f"REGIONCTL_{name.upper()}", "") for name in MONITORING}
    for name in ("pagerduty_key_file", "slack_url_file"):
        if given[name] and not Path(given[name]).is_file():
            raise Invalid(f"REGIONCTL_{name.upper()}: there is no file {given[name]}.")
    webhook, seconds = given["alert_webhook"], given["scrape_seconds"]
    if webhook and not webhook.startswith(("http://", "https://")):
        raise Invalid(f"REGIONCTL_ALERT_WEBHOOK is {webhook!r}; it must be an http(s) URL.")
    if seconds and not (seconds.isdecimal() and 1 <= int(seconds) <= 300):
        raise Invalid(f"REGIONCTL_SCRAPE_SECONDS is {seconds!r}; it must be from 1 to 300.")
    return MonitoringChoices(
        prometheus_bin=given["prometheus_bin"] or None,
        alertmanager_bin=given["alertmanager_bin"] or None,
        pagerduty_key_file=_absolute(given["pagerduty_key_file"]),
        slack_url_file=_absolute(given["slack_url_file"]),
        slack_channel=given["slack_channel"] or None,
        alert_webhook=webhook,
        scrape_seconds=int(seconds) if seconds else None,
    )


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if path else ""


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """Raises `Invalid` when a variable is missing or is not what it should be."""
    values = os.environ if environment is None else environment
    state = values.get("REGIONCTL_STATE", "")
    if not state:
        raise Invalid(
            "REGIONCTL_STATE is not set, so there is no state directory to serve.",
            hint="Start the control plane with: regionctl up",
        )
    port = values.get("REGIONCTL_PORT", "18000")
    if not port.isdecimal():
        raise Invalid(f"REGIONCTL_PORT is {port!r}; it must be a port number.")
    directory = Path(state)
    default = f"sqlite+aiosqlite:///{directory / 'control' / 'control.db'}"
    database_url = values.get("REGIONCTL_DATABASE_URL") or default
    return Settings(directory, database_url, int(port), values.get("REGIONCTL_ADDRESS"))
