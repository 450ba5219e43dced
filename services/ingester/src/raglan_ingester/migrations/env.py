"""Run by alembic: applies revisions on the connection that `raglan_ingester.schema` gives."""

from alembic import context

from raglan_ingester.schema import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
