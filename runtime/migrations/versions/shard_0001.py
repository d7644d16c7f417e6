"""Users, orders and the outbox of one shard. `user_id` leads every primary key."""

from __future__ import annotations

from alembic import op

from runtime.migrations.fence import FENCE, guarded

revision = "shard_0001"
down_revision = None
branch_labels = ("shard",)
depends_on = None

TABLES = (
    """
    CREATE TABLE users (
        user_id bigint PRIMARY KEY CHECK (user_id > 0),
        email text NOT NULL,
        name text NOT NULL,
        idempotency_key text NOT NULL,
        request_hash bytea NOT NULL,
        created_at timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE orders (
        user_id bigint NOT NULL,
        id bigint NOT NULL CHECK (id > 0),
        idempotency_key text NOT NULL,
        request_hash bytea NOT NULL,
        status text NOT NULL,
        currency text NOT NULL,
        total_cents bigint NOT NULL CHECK (total_cents >= 0),
        created_at timestamptz NOT NULL,
        PRIMARY KEY (user_id, id),
        CONSTRAINT orders_idempotency_key UNIQUE (user_id, idempotency_key),
        CONSTRAINT orders_id UNIQUE (id)
    )
    """,
    """
    CREATE TABLE order_items (
        user_id bigint NOT NULL,
        order_id bigint NOT NULL,
        sku text NOT NULL,
        quantity int NOT NULL CHECK (quantity > 0),
        unit_price_cents bigint NOT NULL CHECK (unit_price_cents >= 0),
        PRIMARY KEY (user_id, order_id, sku)
    )
    """,
    """
    CREATE TABLE outbox (
        user_id bigint NOT NULL,
        event_id bigint NOT NULL,
        kind text NOT NULL,
        payload jsonb NOT NULL,
        created_at timestamptz NOT NULL,
        relayed_at timestamptz,
        PRIMARY KEY (user_id, event_id)
    )
    """,
    "CREATE INDEX outbox_pending ON outbox (created_at) WHERE relayed_at IS NULL",
    "GRANT SELECT, INSERT ON users, orders, order_items, outbox TO app",
    "GRANT UPDATE (relayed_at) ON outbox TO app",
    guarded("users"),
    guarded("orders"),
    guarded("outbox"),
)


def upgrade() -> None:
    for statement in (*FENCE, *TABLES):
        op.execute(statement)
