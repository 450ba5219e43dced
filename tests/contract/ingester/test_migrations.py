"""The schema: made, migrated from every revision, by one of many, and refused when it is newer."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from raglan.database import Database, url_of
from raglan.errors import Conflict
from raglan_ingester.model import Base, Deployment, Document, Job
from raglan_ingester.schema import SCHEMA

GIVEN = os.environ.get("RAGLAN_INGESTER_DATABASE_URL", "")
ADDED_LATER = (
    *("deployments", "restores", "unfinished_labels", "sources", "source_documents"),
    "job_counters",
)
ADD_JOB = (
    "INSERT INTO jobs (id, collection, state, attempt, cancel_requested, stages, documents, "
    "created_ms) VALUES ('{id}', '{collection}', 'queued', 1, FALSE, '{{}}', 1, 1)"
)
"""With the columns of the first revision."""


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """An empty database: a file, or one of its own on the server that is given."""
    if not GIVEN:
        yield url_of("", tmp_path / "ingester.sqlite")
        return
    name = f"t{uuid.uuid4().hex}"
    server = sa.create_engine(
        url_of(GIVEN, tmp_path / "ingester.sqlite"), isolation_level="AUTOCOMMIT"
    )
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield (
        sa.make_url(url_of(GIVEN, tmp_path / "ingester.sqlite"))
        .set(database=name)
        .render_as_string(False)
    )
    with server.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    server.dispose()


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    engine = Database(url, SCHEMA).engine
    yield engine
    engine.dispose()


def difference(engine: sa.Engine) -> list[object]:
    with engine.connect() as connection:
        ours = {
            "include_name": lambda name, kind, _: kind != "table" or name in Base.metadata.tables,
            # SQLite keeps the length that a text was declared with, and does not heed it.
            "compare_type": engine.dialect.name != "sqlite",
        }
        context = MigrationContext.configure(connection, opts=ours)
        return list(compare_metadata(context, Base.metadata))


def revision(engine: sa.Engine) -> str:
    with engine.connect() as connection:
        query = sa.text(f"SELECT version_num FROM {SCHEMA.version_table}")
        return str(connection.execute(query).scalar_one())


def made_before_alembic(engine: sa.Engine) -> None:
    """With a job in it."""
    upgraded(engine, "0001")
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TABLE {SCHEMA.version_table}")
        connection.exec_driver_sql(ADD_JOB.format(id="j", collection="c"))


def upgraded(engine: sa.Engine, to: str) -> None:
    with engine.begin() as connection:
        config = SCHEMA._config()
        config.attributes["connection"] = connection
        config.attributes["version_table"] = SCHEMA.version_table
        command.upgrade(config, to)


def test_a_new_database_has_the_tables_of_the_models(engine: sa.Engine) -> None:
    assert SCHEMA.migrate(engine) == SCHEMA.newest() == revision(engine)
    assert difference(engine) == []
    assert SCHEMA.migrate(engine) == SCHEMA.newest()


def test_a_database_made_before_alembic_is_recognised_and_keeps_its_rows(
    engine: sa.Engine,
) -> None:
    made_before_alembic(engine)
    SCHEMA.migrate(engine)
    assert revision(engine) == SCHEMA.newest()
    assert difference(engine) == []
    with engine.connect() as connection:
        assert connection.scalars(sa.select(Job.id)).all() == ["j"]


def test_one_of_many_that_start_at_once_migrates(url: str) -> None:
    engines = [Database(url, SCHEMA).engine for _ in range(6)]
    try:
        made_before_alembic(engines[0])
        with ThreadPoolExecutor(len(engines)) as threads:
            done = list(threads.map(SCHEMA.migrate, engines))
        assert set(done) == {SCHEMA.newest()}
        with engines[0].connect() as connection:
            assert len(connection.scalars(sa.select(Deployment.id)).all()) == 1
    finally:
        for engine in engines:
            engine.dispose()


def test_a_migration_that_breaks_changes_nothing(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_before_alembic(engine)
    upgrade = command.upgrade

    def break_off(*arguments: object) -> None:
        upgrade(*arguments)  # type: ignore[arg-type]
        raise OSError("the process ends here")

    monkeypatch.setattr(command, "upgrade", break_off)
    with pytest.raises(OSError, match="ends here"):
        SCHEMA.migrate(engine)
    monkeypatch.undo()
    assert not set(ADDED_LATER) & set(sa.inspect(engine).get_table_names())
    assert SCHEMA.migrate(engine) == SCHEMA.newest()


def test_a_newer_database_is_refused_and_left_alone(engine: sa.Engine) -> None:
    SCHEMA.migrate(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {SCHEMA.version_table} SET version_num = '9999'")
    with pytest.raises(Conflict, match="has schema 9999, of a newer version"):
        SCHEMA.migrate(engine)
    assert revision(engine) == "9999"


def run(*arguments: str, **variables: object) -> subprocess.CompletedProcess[str]:
    environment = {f"RAGLAN_INGESTER_{k.upper()}": str(v) for k, v in variables.items()}
    return subprocess.run(
        [sys.executable, "-m", "raglan_ingester", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_migrates_and_ends(url: str, engine: sa.Engine, tmp_path: Path) -> None:
    done = run("migrate", database_url=url, data_dir=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"The database has schema {SCHEMA.newest()}."
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {SCHEMA.version_table} SET version_num = '9999'")
    for arguments in (("migrate",), ()):
        refused = run(*arguments, database_url=url, data_dir=tmp_path, port=0)
        assert refused.returncode == 1
        assert "of a newer version" in refused.stdout + refused.stderr
    assert run("migrat").returncode == 2


def test_a_database_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    away = "postgresql://raglan@127.0.0.1:9/none"
    done = run("migrate", database_url=away, data_dir=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("The database cannot be reached or refuses the login; check")


def test_a_database_of_before_tenants_gets_room_for_their_names(engine: sa.Engine) -> None:
    """On PostgreSQL a name of 128 characters would be refused."""
    upgraded(engine, "0002")
    with engine.begin() as connection:
        connection.exec_driver_sql(ADD_JOB.format(id="old", collection="docs"))
    SCHEMA.migrate(engine)
    longest = f"{'t' * 63}~{'c' * 64}"
    with engine.begin() as connection:
        new = sa.insert(Job).values(id="new", collection=longest, documents=1, created_ms=2)
        connection.execute(new)
        names = connection.scalars(sa.select(Job.collection).order_by(Job.id)).all()
    assert names == [longest, "docs"]


def test_documents_of_before_access_tags_are_open(engine: sa.Engine) -> None:
    upgraded(engine, "0003")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO documents (collection, id, job_id, state, error, title, text, "
            "metadata_json, filename, media_type, sha256, size_bytes, chunks, fingerprint, "
            "created_ms) VALUES ('c', 'd', 'j', 'ready', '', '', '', '{}', '', '', '', 1, 1, '', 1)"
        )
    SCHEMA.migrate(engine)
    with engine.connect() as connection:
        row = connection.execute(sa.select(Document.access, Document.edited_ms)).one()
    assert tuple(row) == ([], 0)
