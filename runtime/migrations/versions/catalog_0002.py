"""Events of the stock, clients, signing keys, revoked sessions, the audit log."""

from __future__ import annotations

from alembic import op

from runtime.migrations.fence import guarded

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
    "GRANT SELECT, INSERT ON outbox, signing_keys, revocations, audit_log TO app",
    "GRANT SELECT ON oauth_clients TO app",
    "GRANT DELETE ON revocations, signing_keys TO app",
    "GRANT UPDATE (relayed_at) ON outbox TO app",
    "GRANT UPDATE (name, price_cents, stock, initial_stock, version) ON products TO app",
    "GRANT UPDATE (outcome) ON stock_movements TO app",
    guarded("outbox"),
    guarded("signing_keys"),
    guarded("revocations"),
    guarded("audit_log"),
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)
