"""The tables of the control plane.

SQLite and PostgreSQL keep the same shapes: times are ISO 8601 text in UTC, monotonic times are
seconds (double precision), documents are JSON.
"""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
)
from sqlalchemy import event as hook

SCHEMA_VERSION = 2

metadata = MetaData()
serial = BigInteger().with_variant(Integer, "sqlite")

schema = Table(
    "schema",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Integer, nullable=False),
)

operation = Table(
    "operation",
    metadata,
    Column("number", serial, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("locks", JSON, nullable=False),
    Column("expected", JSON, nullable=False),
    Column("premises", JSON, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("idempotency_key", Text, unique=True),
    Column("epoch", BigInteger, nullable=False),
    Column("worker", Text),
    Column("heartbeat_at", Text),
    Column("abort_requested", Boolean, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("started_at", Text),
    Column("finished_at", Text),
    Column("problem", JSON(none_as_null=True)),
    Index("operation_state", "state"),
)

# What an operation with an idempotency key was asked by; see `control_plane.guards.digest`.
request = Table(
    "request",
    metadata,
    Column("operation_id", ForeignKey("operation.id"), primary_key=True),
    Column("digest", Text, nullable=False),
)

step = Table(
    "step",
    metadata,
    Column("operation_id", ForeignKey("operation.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("args", JSON, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("started_at", Text),
    Column("started_monotonic", Float(53)),
    Column("finished_at", Text),
    Column("finished_monotonic", Float(53)),
    Column("result", JSON(none_as_null=True)),
    Column("problem", JSON(none_as_null=True)),
)

event = Table(
    "event",
    metadata,
    Column("sequence", serial, primary_key=True, autoincrement=True),
    Column("operation_id", Text),
    Column("kind", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("monotonic", Float(53), nullable=False),
    Column("data", JSON, nullable=False),
    Index("event_operation", "operation_id", "sequence"),
    sqlite_autoincrement=True,
)

shard_map = Table(
    "shard_map",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("document", JSON, nullable=False),
    Column("reason", Text, nullable=False),
    Column("saved_at", Text, nullable=False),
)

failover = Table(
    "failover",
    metadata,
    Column("id", serial, primary_key=True, autoincrement=True),
    Column("database", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("operation_id", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("acknowledged_at", Text),
    Column("acknowledge_reason", Text),
    Index("failover_once", "database", "kind", "operation_id", unique=True),
)

report = Table(
    "report",
    metadata,
    Column("id", Text, primary_key=True),
    Column("saved_at", Text, nullable=False),
    Column("document", JSON, nullable=False),
)

topology = Table(
    "topology",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("document", JSON, nullable=False),
    Column("saved_at", Text, nullable=False),
)

token = Table(
    "token",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("secret_hash", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", Text),
    Column("revoked_at", Text),
    Column("revoked_by", Text),
)

audit = Table(
    "audit",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("operation", Text),
    Column("plan", Text),
    Column("steps", JSON(none_as_null=True)),
    Column("outcome", Text),
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Index("audit_operation", "operation", "sequence"),
    Index("audit_actor", "actor", "sequence"),
)

# What the edge did in one minute, since 1970; see `control_plane.levels.Tally`.
minute = Table(
    "minute",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("requests", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("timed", BigInteger, nullable=False),
    Column("slow", Float, nullable=False),
    Column("slices", BigInteger, nullable=False),
    Column("bad_slices", BigInteger, nullable=False),
)

_REFUSED = "the audit log is append-only"
_SQLITE = """
CREATE TRIGGER audit_{event} BEFORE {event} ON audit {condition}
BEGIN SELECT RAISE(ABORT, '{refused}'); END
"""
# INSERT OR REPLACE deletes without the trigger for deletions.
_NEXT = "WHEN NEW.sequence <> (SELECT coalesce(max(sequence), 0) + 1 FROM audit)"
_POSTGRES = (
    f"""
CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '{_REFUSED}'; END $$
""",
    """
CREATE TRIGGER audit_rows BEFORE UPDATE OR DELETE ON audit
FOR EACH ROW EXECUTE FUNCTION audit_refuse()
""",
    """
CREATE TRIGGER audit_table BEFORE TRUNCATE ON audit
FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()
""",
)


def _after_audit(text: str, dialect: str) -> None:
    ddl = DDL(text)  # type: ignore[no-untyped-call]
    hook.listen(audit, "after_create", ddl.execute_if(dialect=dialect))


for _event, _condition in (("update", ""), ("delete", ""), ("insert", _NEXT)):
    _after_audit(_SQLITE.format(event=_event, condition=_condition, refused=_REFUSED), "sqlite")
for _text in _POSTGRES:
    _after_audit(_text, "postgresql")
