"""What the monitoring files are made from: how often is looked, where, and who is told. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from infra.topology import EDGE, Topology

CONTROL_PLANE = "control-plane"
SERVICES, GATEWAYS = "services", "gateways"
JOBS = (SERVICES, GATEWAYS, EDGE, CONTROL_PLANE)


@dataclass(frozen=True)
class Pace:
    """Seconds. Metrics are read every `scrape`, rules judged every `evaluate`.

    A rule looks at the last `window` and must hold for `hold` before it fires; Alertmanager waits
    `group` for more of the same before it tells somebody, and tells again after `again`.
    """

    scrape: float = 15.0
    evaluate: float = 15.0
    window: float = 300.0
    hold: float = 60.0
    group: float = 30.0
    again: float = 4 * 3600.0

    @staticmethod
    def every(scrape: float) -> Pace:
        """All of it as much quicker or slower as `scrape` is."""
        usual = Pace()
        times = scrape / usual.scrape
        found = {name: times * value for name, value in asdict(usual).items()}
        return Pace(**{**found, "again": usual.again})


@dataclass(frozen=True)
class Receivers:
    """Who is told. Of secrets only the files that hold them are named, by their paths on the
    machine of Alertmanager; "" for nobody there.

    `pagerduty_key_file` has the integration key (Events API v2) that critical alerts go to,
    `slack_url_file` the incoming webhook of `slack_channel` for everything else, `webhook_url`
    is sent all of it in Alertmanager's own JSON.
    """

    pagerduty_key_file: str = ""
    slack_url_file: str = ""
    slack_channel: str = "#regionctl"
    webhook_url: str = ""


@dataclass(frozen=True)
class Target:
    """Something with metrics: its `instance` is the name that all of regionctl knows it by."""

    job: str
    instance: str
    address: str
    component: str
    region: str
    zone: str

    def labels(self) -> dict[str, str]:
        """What Prometheus puts on each of its series."""
        known = {
            "instance": self.instance,
            "component": self.component,
            "region": self.region,
            "zone": self.zone,
        }
        return {name: value for name, value in known.items() if value}


def targets(topology: Topology, addresses: Mapping[str, str]) -> tuple[Target, ...]:
    """Everything that is to be scraped. `addresses` ("host:port", by instance) are those of
    /metrics for services and the control plane, of the admin interface for Envoys."""
    jobs = {"service": SERVICES, "envoy": GATEWAYS}
    found = [
        Target(
            EDGE if spec.id == EDGE else jobs[spec.kind],
            spec.id,
            addresses[spec.id],
            spec.component,
            spec.region,
            spec.zone,
        )
        for spec in topology.by_id.values()
        if spec.kind in jobs
    ]
    own = addresses[CONTROL_PLANE]
    return (*found, Target(CONTROL_PLANE, CONTROL_PLANE, own, CONTROL_PLANE, "", ""))
