"""The tables of the control plane.

SQLite and PostgreSQL keep the same shapes: times are ISO 8601 text in UTC, monotonic times are
seconds (double precision), documents are JSON.
"""

from __future__ import annotations

from sqlalchemy import (
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

SCHEMA_VERSION = 1

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
