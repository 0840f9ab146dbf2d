"""Run by Alembic. The connection, and the transaction around it, are `redkeep.store.migrate`'s."""

from alembic import context

from redkeep.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
