"""The rows of a query as a source, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from postgres_server import PostgresServer
from raglan.errors import InvalidInput, PayloadTooLarge
from raglan_ingester.sources import config
from raglan_ingester.sources.config import PostgresqlSettings
from raglan_ingester.sources.reader import Skipped, SkippedDocumentError, SourceUnavailable
from raglan_ingester.sources.readers.postgresql import PostgresqlReader

TICKETS = "SELECT id, subject, body, answer, team, paid, at FROM tickets WHERE subject LIKE 'T%'"


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(
            "DROP TABLE IF EXISTS tickets; CREATE TABLE tickets (id int PRIMARY KEY, subject text, "
            "body text, answer text, team text, paid numeric, at timestamptz)"
        )
        connection.execute(
            "INSERT INTO tickets SELECT n, 'Ticket ' || n, 'The pump ' || n || ' leaks.', "
            "CASE WHEN n % 2 = 0 THEN 'Tighten it.' END, 'pumps', n * 1.5, '2026-01-02 03:04Z' "
            "FROM generate_series(1, 5) n"
        )
        yield connection


def settings_of(postgres: PostgresServer, **changes: Any) -> PostgresqlSettings:
    values = {
        "name": "tickets",
        "kind": "postgresql",
        "collection": "default",
        "url": postgres.url,
        "query": TICKETS,
        "key": "id",
        "text": ["body", "answer"],
        "title": "subject",
    }
    return PostgresqlSettings(**(values | changes))


async def read(postgres: PostgresServer, max_bytes: int = 10_000, **changes: Any) -> Any:
    """List and read; (contents by key, versions by key, skipped)."""
    reader = PostgresqlReader(settings_of(postgres, **changes), "", max_bytes)
    skipped = Skipped()
    try:
        listing = await reader.list_entries("", skipped)
        assert listing is not None
        found = {}
        for entry in listing.entries:
            try:
                found[entry.key] = await reader.read(entry, "")
            except SkippedDocumentError as error:
                skipped.add(error.message)
        return found, {each.key: each.version for each in listing.entries}, skipped
    finally:
        await reader.close()


async def test_a_row_is_a_document(postgres: PostgresServer, database: Any) -> None:
    found, _, skipped = await read(postgres)
    assert sorted(found) == ["1", "2", "3", "4", "5"]
    assert found["2"].data.decode() == "The pump 2 leaks.\n\nTighten it."
    assert found["3"].data.decode() == "The pump 3 leaks."
    assert found["2"].title == "Ticket 2"
    assert found["2"].metadata["id"] == 2
    assert found["2"].metadata["paid"] == 3.0
    assert found["2"].metadata["team"] == "pumps"
    assert found["2"].metadata["at"].startswith("2026-01-02T03:04:00")
    assert skipped.count == 0


async def test_a_version_is_that_of_the_row(postgres: PostgresServer, database: Any) -> None:
    _, before, _ = await read(postgres)
    database.execute("UPDATE tickets SET team = 'valves' WHERE id = 3")
    database.execute("UPDATE tickets SET team = team WHERE id = 4")
    _, after, _ = await read(postgres)
    assert {key for key in before if before[key] != after[key]} == {"3"}


@pytest.mark.parametrize(
    "changes",
    [
        {"text": "body"},
        {"title": ""},
        {"media_type": "text/markdown"},
        {"query": TICKETS.replace("team,", "team AS squad,")},
    ],
)
async def test_a_setting_that_changes_documents_changes_their_versions(
    postgres: PostgresServer, database: Any, changes: dict[str, Any]
) -> None:
    _, before, _ = await read(postgres)
    _, after, _ = await read(postgres, **changes)
    assert before.keys() == after.keys()
    assert all(before[key] != after[key] for key in before)


async def test_a_query_may_end_in_a_comment_and_columns_have_any_name(
    postgres: PostgresServer, database: Any
) -> None:
    query = "SELECT id AS \"a %s ('') b\", body FROM tickets -- closed ones"
    found, _, skipped = await read(
        postgres, query=query, key="a %s ('') b", text="body", title=""
    )  # fmt: skip
    assert sorted(found) == ["1", "2", "3", "4", "5"]
    assert skipped.count == 0


async def test_a_text_that_is_json_stays_json(postgres: PostgresServer, database: Any) -> None:
    query = (
        "SELECT id, jsonb_build_object('a', null, 'b', true) AS body, 1.50 AS answer FROM tickets"
    )
    found, _, _ = await read(postgres, query=query, title="")
    assert found["1"].data.decode() == '{"a": null, "b": true}\n\n1.5'


@pytest.mark.parametrize(
    "team",
    ["repeat('[', 6000) || repeat(']', 6000)", "repeat('9', 5000)", "to_json(repeat('x', 70000))"],
)
async def test_a_row_that_cannot_be_taken_leaves_the_others(
    postgres: PostgresServer, database: Any, team: str
) -> None:
    query = f"SELECT id, body, CASE WHEN id = 2 THEN ({team})::text::json END AS team FROM tickets"
    found, _, skipped = await read(postgres, max_bytes=100_000, query=query, text="body", title="")
    assert sorted(found) == ["1", "3", "4", "5"]
    assert skipped.reasons[0].startswith("The row '2'")


async def test_a_key_that_does_not_compare_exactly_is_refused(
    postgres: PostgresServer, database: Any
) -> None:
    with pytest.raises(SourceUnavailable, match="cast it to text"):
        await read(
            postgres, query="SELECT id::real AS id, body FROM tickets", text="body", title=""
        )


async def test_rows_that_follow_one_another_are_read_together(
    postgres: PostgresServer, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(
        "INSERT INTO tickets SELECT n, 'Ticket ' || n, 'Text.' FROM generate_series(6, 1000) n"
    )
    fetched: list[int] = []
    fetch = PostgresqlReader._fetch

    async def counted(self: PostgresqlReader, keys: list[str]) -> Any:
        fetched.append(len(keys))
        return await fetch(self, keys)

    monkeypatch.setattr(PostgresqlReader, "_fetch", counted)
    found, _, _ = await read(postgres)
    assert len(found) == 1000
    assert None not in found.values()
    assert len(fetched) < 20
    assert max(fetched) <= 100


async def test_rows_without_a_key_of_their_own_are_skipped(
    postgres: PostgresServer, database: Any
) -> None:
    found, _, skipped = await read(
        postgres, query="SELECT CASE WHEN id > 1 THEN team END AS id, body FROM tickets",
        text="body", title="",
    )  # fmt: skip
    assert list(found) == ["pumps"]
    assert skipped.count == 4
    assert any("has no id" in each for each in skipped.reasons)
    assert any("Several rows" in each for each in skipped.reasons)


async def test_a_row_that_is_too_large_is_not_fetched(
    postgres: PostgresServer, database: Any
) -> None:
    database.execute("UPDATE tickets SET body = repeat('x', 20000) WHERE id = 2")
    found, versions, skipped = await read(postgres)
    assert "2" in versions
    assert "2" not in found
    assert "RAGLAN_INGESTER_MAX_DOCUMENT_BYTES" in skipped.reasons[0]


async def test_a_row_that_is_gone_meanwhile_is_none(
    postgres: PostgresServer, database: Any
) -> None:
    reader = PostgresqlReader(settings_of(postgres), "", 10_000)
    listing = await reader.list_entries("", Skipped())
    assert listing is not None
    database.execute("DELETE FROM tickets WHERE id = 1")
    (entry,) = [each for each in listing.entries if each.key == "1"]
    assert await reader.read(entry, "") is None
    await reader.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"query": "SELECT nothing FROM tickets"}, 'column "nothing" does not exist'),
        ({"text": "missing"}, "has no column 'missing'"),
        ({"query": "SELECT 1 AS id; DROP TABLE tickets"}, "syntax error"),
        ({"query": "DELETE FROM tickets RETURNING id, body"}, "syntax error"),
        ({"query": "SELECT setval('s', 1) AS id, '' AS body", "text": "body"}, "read-only"),
        ({"query": "SELECT pg_sleep(60)::text AS id, '' AS body", "text": "body"}, "within"),
    ],
)
async def test_a_query_that_cannot_run_says_why_and_changes_nothing(
    postgres: PostgresServer,
    database: Any,
    changes: dict[str, Any],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("raglan_ingester.sources.readers.postgresql._LIST_S", 2.0)
    database.execute("CREATE SEQUENCE IF NOT EXISTS s")
    with pytest.raises(SourceUnavailable, match=said):
        await read(postgres, title="", **changes)
    assert database.execute("SELECT count(*) FROM tickets").fetchone() == (5,)


async def test_more_rows_than_the_limit_are_refused(
    postgres: PostgresServer, database: Any
) -> None:
    with pytest.raises(PayloadTooLarge, match="more than 4 documents"):
        await read(postgres, max_documents=4)
    found, _, _ = await read(postgres, max_documents=4, exclude=["5"])
    assert len(found) == 4


async def test_a_server_that_is_away_is_named_without_the_password(
    postgres: PostgresServer,
) -> None:
    url = "postgresql://raglan@127.0.0.1:1/postgres"
    reader = PostgresqlReader(settings_of(postgres, url=url), "very-secret", 1000)
    with pytest.raises(SourceUnavailable, match="connection") as caught:
        await reader.list_entries("", Skipped())
    assert "very-secret" not in caught.value.message


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://reader@db/shop", "write postgresql://"),
        ("postgresql://reader:secret@db/shop", "password_file"),
        ("postgresql://reader@db/shop?password=secret", "password_file"),
    ],
)
def test_an_address_is_checked_when_the_file_is_read(url: str, said: str, tmp_path: Path) -> None:
    text = (
        "sources: [{name: a, kind: postgresql, collection: default, query: SELECT 1, key: id, "
        f"text: body, url: '{url}'}}]"
    )
    with pytest.raises(InvalidInput, match=said) as caught:
        config.parse(text.encode(), "sources.yaml")
    assert "secret" not in caught.value.message
