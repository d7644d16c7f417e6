"""Passwords, roles and sessions; the saga of an order; payments and mails of one shard."""

from __future__ import annotations

from alembic import op

from runtime.migrations.fence import guarded

revision = "shard_0002"
down_revision = "shard_0001"
branch_labels = None
depends_on = None

TABLES = (
    """
    ALTER TABLE users
        ADD COLUMN role text NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'admin')),
        ADD COLUMN password_hash text NOT NULL DEFAULT '',
        ADD COLUMN version int NOT NULL DEFAULT 1
    """,
    # One row a login. token_hash: SHA-256 of the refresh token that is good now; previous_hash: of
    # the one before, whose return means theft; rotation_key: the Idempotency-Key of the rotation.
    """
    CREATE TABLE sessions (
        user_id bigint NOT NULL,
        id bigint NOT NULL CHECK (id > 0),
        client_id text NOT NULL,
        token_hash bytea NOT NULL,
        previous_hash bytea,
        rotation_key text,
        rotated_at timestamptz,
        created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        revoked_at timestamptz,
        PRIMARY KEY (user_id, id)
    )
    """,
    # stock, payment: what inventory and payments have answered. version grows with every change.
    """
    ALTER TABLE orders
        ADD COLUMN stock text NOT NULL DEFAULT 'pending'
            CHECK (stock IN ('pending', 'reserved', 'refused', 'returned')),
        ADD COLUMN payment text NOT NULL DEFAULT 'pending'
            CHECK (payment IN ('pending', 'captured', 'declined', 'void', 'refunded')),
        ADD COLUMN payment_method text NOT NULL DEFAULT 'card',
        ADD COLUMN reason text,
        ADD COLUMN version int NOT NULL DEFAULT 1,
        ADD COLUMN updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        ADD COLUMN keywords text NOT NULL DEFAULT '',
        ADD COLUMN search tsvector
            GENERATED ALWAYS AS (to_tsvector('simple', keywords)) STORED,
        ADD CONSTRAINT orders_status CHECK (status IN ('placed', 'confirmed', 'cancelled'))
    """,
    """
    CREATE INDEX orders_unsettled ON orders (updated_at) WHERE status = 'placed'
        OR status = 'cancelled' AND NOT (stock IN ('refused', 'returned')
                                         AND payment IN ('declined', 'void', 'refunded'))
    """,
    "CREATE INDEX orders_search ON orders USING gin (search)",
    "ALTER TABLE order_items ADD COLUMN name text NOT NULL DEFAULT ''",
    "ALTER TABLE outbox ADD COLUMN traceparent text",
    # cancel_requested: the order was cancelled; whoever sees it together with a captured amount
    # refunds that. transaction_id, refund_id: the payment gateway's names.
    """
    CREATE TABLE payments (
        user_id bigint NOT NULL,
        order_id bigint NOT NULL,
        amount_cents bigint NOT NULL CHECK (amount_cents >= 0),
        currency text NOT NULL,
        method text NOT NULL,
        status text NOT NULL
            CHECK (status IN ('pending', 'captured', 'declined', 'void', 'refunded')),
        cancel_requested boolean NOT NULL DEFAULT false,
        transaction_id text,
        refund_id text,
        reason text,
        version int NOT NULL DEFAULT 1,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (user_id, order_id)
    )
    """,
    """
    CREATE INDEX payments_unfinished ON payments (updated_at)
        WHERE status = 'pending' OR status = 'captured' AND cancel_requested
    """,
    # status: sent, failed (refused for good), skipped (nothing to say to anybody).
    """
    CREATE TABLE notifications (
        user_id bigint NOT NULL,
        event_id bigint NOT NULL,
        kind text NOT NULL,
        recipient text NOT NULL,
        status text NOT NULL CHECK (status IN ('sent', 'failed', 'skipped')),
        reason text,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (user_id, event_id)
    )
    """,
    "GRANT UPDATE (name, role, password_hash, version) ON users TO app",
    "GRANT UPDATE (status, stock, payment, reason, version, updated_at) ON orders TO app",
    "GRANT SELECT, INSERT, UPDATE ON sessions, payments TO app",
    "GRANT DELETE ON sessions TO app",
    "GRANT SELECT, INSERT ON notifications TO app",
    guarded("order_items"),
    guarded("sessions"),
    guarded("payments"),
    guarded("notifications"),
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)
