"""Passwords, roles and sessions; the saga of an order; payments and mails of one shard."""

from __future__ import annotations

from alembic import op

from runtime.migrations.fence import REFUSE_UNGUARDED, guarded

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
    guarded("order_items"),
    guarded("sessions"),
    guarded("payments"),
    guarded("notifications"),
    REFUSE_UNGUARDED,
)
# By service, what its SQL uses. Inventory has nothing here. UPDATE of one column is also what a
# lock of the row needs (SELECT FOR UPDATE, FOR SHARE).
GRANTS = (
    "REVOKE ALL ON users, orders, order_items, outbox FROM app",
    "GRANT SELECT (user_id, role, password_hash), UPDATE (password_hash) ON users TO auth",
    """
    GRANT SELECT, INSERT (user_id, id, client_id, token_hash, created_at, expires_at), DELETE,
          UPDATE (token_hash, previous_hash, rotation_key, rotated_at, expires_at, revoked_at)
    ON sessions TO auth
    """,
    """
    GRANT SELECT,
          INSERT (user_id, email, name, idempotency_key, request_hash, created_at, password_hash),
          UPDATE (name, role, password_hash, version)
    ON users TO users
    """,
    "GRANT SELECT (user_id, id, expires_at, revoked_at), UPDATE (revoked_at) ON sessions TO users",
    "GRANT SELECT (user_id) ON users TO orders",
    """
    GRANT SELECT,
          INSERT (user_id, id, idempotency_key, request_hash, status, currency, total_cents,
                  created_at, updated_at, payment_method, keywords),
          UPDATE (status, stock, payment, reason, version, updated_at)
    ON orders TO orders
    """,
    """
    GRANT SELECT, INSERT (user_id, order_id, sku, quantity, unit_price_cents, name) ON order_items
    TO orders
    """,
    """
    GRANT SELECT, INSERT (user_id, event_id, kind, payload, traceparent, created_at),
          UPDATE (relayed_at)
    ON outbox TO orders
    """,
    "GRANT SELECT (user_id, event_id) ON notifications TO orders",
    """
    GRANT SELECT (user_id, id, total_cents, currency, payment_method, created_at) ON orders
    TO payments
    """,
    """
    GRANT SELECT (user_id, order_id, sku, name, quantity, unit_price_cents) ON order_items
    TO payments
    """,
    """
    GRANT SELECT,
          INSERT (user_id, order_id, amount_cents, currency, method, status, cancel_requested),
          UPDATE (amount_cents, currency, method, status, cancel_requested, transaction_id,
                  refund_id, reason, version, updated_at)
    ON payments TO payments
    """,
    """
    GRANT SELECT (user_id, event_id),
          INSERT (user_id, event_id, kind, payload, traceparent, created_at), UPDATE (relayed_at)
    ON outbox TO payments
    """,
    "GRANT SELECT (user_id, email, name) ON users TO notifications",
    "GRANT SELECT (user_id, id) ON orders TO notifications",
    """
    GRANT SELECT, INSERT (user_id, event_id, kind, recipient, status, reason) ON notifications
    TO notifications
    """,
)


def upgrade() -> None:
    for statement in (*TABLES, *GRANTS):
        op.execute(statement)
