"""Events of the stock, clients, signing keys, revoked sessions, the audit log."""

from __future__ import annotations

from alembic import op

from runtime.migrations.fence import REFUSE_UNGUARDED, guarded

revision = "catalog_0002"
down_revision = "catalog_0001"
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE outbox (
        user_id bigint NOT NULL,
        event_id bigint NOT NULL,
        kind text NOT NULL,
        payload jsonb NOT NULL,
        traceparent text,
        created_at timestamptz NOT NULL,
        relayed_at timestamptz,
        PRIMARY KEY (user_id, event_id)
    )
    """,
    "CREATE INDEX outbox_pending ON outbox (created_at) WHERE relayed_at IS NULL",
    "ALTER TABLE products ADD COLUMN version int NOT NULL DEFAULT 1",
    # added: put into stock from outside, also into initial_stock; its order_id is the event_id.
    """
    ALTER TABLE stock_movements DROP CONSTRAINT stock_movements_outcome_check,
        ADD CONSTRAINT stock_movements_outcome
            CHECK (outcome IN ('reserved', 'refused', 'returned', 'added'))
    """,
    # secret_hash: SHA-256 of a random secret of 192 bits or more, which needs no slow hash.
    """
    CREATE TABLE oauth_clients (
        id text PRIMARY KEY,
        secret_hash bytea NOT NULL,
        role text NOT NULL CHECK (role IN ('service', 'admin')),
        created_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
    """,
    # sealed: the private key as JWK, encrypted with a key that only the auth service is given.
    """
    CREATE TABLE signing_keys (
        kid text PRIMARY KEY,
        public_jwk jsonb NOT NULL,
        sealed text NOT NULL,
        created_at timestamptz NOT NULL,
        active_from timestamptz NOT NULL,
        expires_at timestamptz NOT NULL
    )
    """,
    # Sessions whose access tokens may still be in use; a row is of no use after expires_at.
    """
    CREATE TABLE revocations (
        session_id bigint PRIMARY KEY,
        revoked_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE audit_log (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        action text NOT NULL,
        outcome text NOT NULL CHECK (outcome IN ('allowed', 'denied')),
        actor text NOT NULL,
        subject text NOT NULL,
        address text NOT NULL,
        request_id text NOT NULL,
        detail jsonb NOT NULL DEFAULT '{}'
    )
    """,
    """
    CREATE FUNCTION regionctl.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $body$
    BEGIN
        RAISE EXCEPTION USING ERRCODE = 'RG004', MESSAGE = 'the audit log is append-only';
    END
    $body$
    """,
    """
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION regionctl.refuse_change()
    """,
    guarded("outbox"),
    guarded("signing_keys"),
    guarded("revocations"),
    guarded("audit_log"),
    REFUSE_UNGUARDED,
)
# By service, what its SQL uses; to the group what every service polls.
GRANTS = (
    "REVOKE ALL ON products, stock_movements, emails FROM app",
    "GRANT SELECT (kid, public_jwk, expires_at) ON signing_keys TO app",
    "GRANT SELECT (session_id, expires_at) ON revocations TO app",
    "GRANT SELECT (id, secret_hash, role) ON oauth_clients TO auth",
    "GRANT SELECT (email, user_id) ON emails TO auth",
    "GRANT SELECT, INSERT, DELETE ON signing_keys TO auth",
    "GRANT DELETE ON revocations TO auth",
    "GRANT SELECT ON audit_log TO auth",
    "GRANT INSERT (session_id, revoked_at, expires_at) ON revocations TO auth, users",
    """
    GRANT INSERT (action, outcome, actor, subject, address, request_id, detail) ON audit_log
    TO auth, users, inventory
    """,
    """
    GRANT SELECT (email, user_id, idempotency_key, request_hash, state),
          INSERT (email, user_id, idempotency_key, request_hash, state),
          UPDATE (idempotency_key, request_hash, state)
    ON emails TO users
    """,
    "GRANT SELECT (sku, name, price_cents, currency) ON products TO orders",
    """
    GRANT SELECT, UPDATE (name, price_cents, stock, initial_stock, version) ON products
    TO inventory
    """,
    """
    GRANT SELECT (event_id, sku, quantity, outcome),
          INSERT (event_id, order_id, user_id, sku, quantity, outcome), UPDATE (outcome)
    ON stock_movements TO inventory
    """,
    """
    GRANT SELECT, INSERT (user_id, event_id, kind, payload, traceparent, created_at),
          UPDATE (relayed_at)
    ON outbox TO inventory
    """,
)


def upgrade() -> None:
    for statement in (*TABLES, *GRANTS):
        op.execute(statement)
