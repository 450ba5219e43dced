"""The gateway's tables: those of the models, beside the ingester's in one database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from postgres_server import PostgresServer
from raglan.database import Database, url_of
from raglan_gateway.store import SCHEMA
from raglan_gateway.store.model import Base
from raglan_ingester.schema import SCHEMA as INGESTERS


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield url_of("", tmp_path / "both.sqlite")
        return
    server = PostgresServer()
    yield url_of(server.url, tmp_path)
    server.remove()


def test_the_tables_are_those_of_the_models_beside_the_ingesters(url: str) -> None:
    for schema in (INGESTERS, SCHEMA):
        database = Database(url, schema)
        assert database.migrate() == schema.newest()
        database.engine.dispose()
    ours = {"include_name": lambda name, kind, _: kind != "table" or name in Base.metadata.tables}
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=ours)
        assert list(compare_metadata(context, Base.metadata)) == []
    engine.dispose()
