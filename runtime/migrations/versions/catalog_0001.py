"""Products, stock and the e-mail directory: what cannot be split by user."""

from __future__ import annotations

from alembic import op

from runtime.migrations.fence import FENCE, guarded

revision = "catalog_0001"
down_revision = None
branch_labels = ("catalog",)
depends_on = None

TABLES = (
    """
    CREATE TABLE products (
        sku text PRIMARY KEY,
        name text NOT NULL,
        price_cents bigint NOT NULL CHECK (price_cents >= 0),
        currency text NOT NULL,
        stock bigint NOT NULL CHECK (stock >= 0),
        initial_stock bigint NOT NULL CHECK (initial_stock >= 0)
    )
    """,
    # outcome: reserved = taken from stock, refused = too little stock, returned = put back.
    """
    CREATE TABLE stock_movements (
        event_id bigint NOT NULL,
        sku text NOT NULL,
        order_id bigint NOT NULL,
        user_id bigint NOT NULL,
        quantity int NOT NULL CHECK (quantity > 0),
        outcome text NOT NULL CHECK (outcome IN ('reserved', 'refused', 'returned')),
        recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (event_id, sku)
    )
    """,
    """
    CREATE TABLE emails (
        email text PRIMARY KEY,
        user_id bigint NOT NULL UNIQUE CHECK (user_id > 0),
        idempotency_key text NOT NULL UNIQUE,
        request_hash bytea NOT NULL,
        state text NOT NULL CHECK (state IN ('reserved', 'confirmed')),
        reserved_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
    """,
    "GRANT SELECT ON products TO app",
    "GRANT UPDATE (stock) ON products TO app",
    "GRANT SELECT, INSERT ON stock_movements TO app",
    "GRANT SELECT, INSERT ON emails TO app",
    "GRANT UPDATE (idempotency_key, request_hash, state) ON emails TO app",
    guarded("products"),
    guarded("stock_movements"),
    guarded("emails"),
)


def upgrade() -> None:
    for statement in (*FENCE, *TABLES):
        op.execute(statement)
