"""What a step does: one async function a step, named like it. Each may be run again."""

from __future__ import annotations

from control_plane.operations import Handler
from control_plane.steps import failover, provision, switchover

HANDLERS: dict[str, Handler] = {
    "ensure-regions": provision.ensure_regions,
    "remove-region": provision.remove_region,
    "start-servers": provision.start_servers,
    "stop-servers": provision.stop_servers,
    "create-primaries": provision.create_primaries,
    "start-databases": provision.start_databases,
    "stop-databases": provision.stop_databases,
    "adopt-map": provision.adopt_map,
    "set-epochs": provision.set_epochs,
    "publish-map": provision.publish_map,
    "clone-standbys": provision.clone_standbys,
    "join-sync": provision.join_sync,
    "seed-catalog": provision.seed_catalog,
    "open-route": provision.open_route,
    "close-route": provision.close_route,
    "await-ready": provision.await_ready,
    "confirm-lost": failover.confirm_lost,
    "record-unsynced": failover.record_unsynced,
    "set-sync": failover.set_sync,
    "fence-instance": failover.fence_instance,
    "fence-region": failover.fence_region,
    "promote": failover.promote,
    "advance-map": failover.advance_map,
    "record-failover": failover.record_failover,
    "salvage": failover.salvage,
    "return-standbys": failover.return_standbys,
    "resend-events": failover.resend_events,
    "return-orphan-stock": failover.return_orphan_stock,
    "promote-queue": failover.promote_queue,
    "advance-queue": failover.advance_queue,
    "catch-up": switchover.catch_up,
    "check-caught-up": switchover.check_caught_up,
}
