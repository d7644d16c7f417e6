"""What moves of slots need: markers, attempts, which slots are served here, a guard by slot."""

from __future__ import annotations

from alembic import op

from runtime.migrations.fence import GUARD_SLOT, REFUSE_OTHER_SLOTS, TRY_GUARD

revision = "shard_0003"
down_revision = "shard_0002"
branch_labels = None
depends_on = None

TABLES = (
    # A row is written on one side of a move and awaited on the other, behind all that came before.
    """
    CREATE TABLE regionctl.fence (
        move_id bigint NOT NULL,
        kind text NOT NULL,
        epoch bigint NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (move_id, kind, epoch)
    )
    """,
    # The newest attempt to hand slots of a move over to this shard; an older one may set no owner.
    """
    CREATE TABLE regionctl.handover (
        move_id bigint PRIMARY KEY,
        attempt bigint NOT NULL
    )
    """,
    # The slots whose rows are to be seen (`runtime/served.py`), and those that are written to.
    """
    CREATE VIEW regionctl.served AS
    SELECT slot::bigint AS slot FROM regionctl.slot_owner WHERE state IN ('owned', 'fencing')
    """,
    """
    CREATE VIEW regionctl.owned AS
    SELECT slot::bigint AS slot FROM regionctl.slot_owner WHERE state = 'owned'
    """,
    GUARD_SLOT,
    REFUSE_OTHER_SLOTS,
    TRY_GUARD,
    "GRANT SELECT ON regionctl.served, regionctl.owned TO app",
    "REVOKE ALL ON FUNCTION regionctl.try_guard(int, bigint) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION regionctl.try_guard(int, bigint) TO app",
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)
