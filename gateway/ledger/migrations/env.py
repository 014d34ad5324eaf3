"""Alembic's entry: runs the versions on the connection that gateway/ledger/opening.py hands in."""

from alembic import context

connection = context.config.attributes["connection"]
# SQLite cannot alter most of a table in place; batch mode copies it.
context.configure(connection=connection, render_as_batch=connection.dialect.name == "sqlite")
with context.begin_transaction():
    context.run_migrations()
