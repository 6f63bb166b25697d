"""Alembic's environment: runs the migrations on one schema, over the connection that `migrate` passes."""

from alembic import context

connection, schema = (context.config.attributes[name] for name in ("connection", "schema"))
context.configure(connection=connection, version_table="migration", version_table_schema=schema)
with context.begin_transaction():
    context.run_migrations()
