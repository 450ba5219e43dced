"""Revisions of the database's schema, for alembic; `raglan_ingester.schema` applies them."""
