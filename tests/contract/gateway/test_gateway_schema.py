"""The gateway's tables: those of the models, beside the ingester's in one database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from postgres_server import PostgresServer
from raglan.database import Database, url_of
from raglan_gateway.store import SCHEMA
from raglan_gateway.store.model import AnswerRow, AnswerSource, Base, DocumentChange
from raglan_ingester.schema import SCHEMA as INGESTERS
from sqlalchemy.orm import Session


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


@pytest.mark.parametrize("had_the_table", [False, True])
def test_a_database_of_before_the_answers_sources_gets_their_table(
    url: str, had_the_table: bool
) -> None:
    """Answers whose sources are unknown cannot go with them, so they go at once."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        config = SCHEMA._config()
        config.attributes["connection"] = connection
        config.attributes["version_table"] = SCHEMA.version_table
        command.upgrade(config, "0002")
        old = {"tenant": "", "caller": "", "id": "a", "created_ms": 1, "size": 1, "record": b""}
        connection.execute(sa.insert(AnswerRow).values(old | {"question": "q", "answer": "a"}))
        if had_the_table:
            sa.Table.create(AnswerSource.__table__, connection)  # type: ignore[arg-type]
    assert SCHEMA.migrate(engine) == SCHEMA.newest()
    with engine.connect() as connection:
        assert not connection.scalars(sa.select(AnswerRow.id)).all()
        assert not connection.scalars(sa.select(AnswerSource.document)).all()
    engine.dispose()


def test_purges_that_have_not_ended_become_changes_of_whole_collections(url: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        config = SCHEMA._config()
        config.attributes["connection"] = connection
        config.attributes["version_table"] = SCHEMA.version_table
        command.upgrade(config, "0004")
        purges = sa.table("answer_purges", *map(sa.column, ("tenant", "collection", "began_ms")))
        connection.execute(sa.insert(purges).values(tenant="t", collection="c", began_ms=7))
    assert SCHEMA.migrate(engine) == SCHEMA.newest()
    with Session(engine) as session:
        (change,) = session.scalars(sa.select(DocumentChange))
        assert (change.tenant, change.collection, change.document) == ("t", "c", b"")
        assert (change.began_ms, change.job_id, change.ended_ms) == (7, None, None)
    engine.dispose()
