"""Run by Alembic for each upgrade: the connection is given by `runtime.migrations.upgrade`."""

from __future__ import annotations

from alembic import context

connection = context.config.attributes["connection"]
connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS regionctl")
# The superuser has the name of that schema, which would otherwise come first on its path.
connection.exec_driver_sql("SET LOCAL search_path TO public")
context.configure(
    connection=connection,
    target_metadata=None,
    version_table="version",
    version_table_schema="regionctl",
)
with context.begin_transaction():
    context.run_migrations()
