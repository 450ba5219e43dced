"""Reader of a PostgreSQL query: each row is a document.

The query becomes a subquery, so that the server computes the version of each row and only rows
that differ are sent. Every statement is a read-only transaction of its own: none stays open while
jobs run, and a pooler may be in between.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import sql
from raglan import metadata as document_metadata
from raglan.errors import RaglanError
from raglan.identifiers import shortened

from raglan_ingester.sources.config import PostgresqlSettings, metadata_of
from raglan_ingester.sources.reader import (
    Content,
    Entry,
    Listing,
    Skipped,
    SkippedDocumentError,
    SourceUnavailable,
    too_many,
)
from raglan_ingester.sources.selection import Selection

_CONNECT_S: Final = 10
_LIST_S: Final = 1800.0
_READ_S: Final = 60.0
_LISTED_AT_ONCE: Final = 2_000
_READ_AT_ONCE: Final = 100
_REAL: Final = 700
"""PostgreSQL's number of the type `real`."""
_READ_BYTES: Final = 8 * 1024 * 1024
"""Rows that are read ahead are as large together at most."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A row as it was listed."""

    key: object
    """In the type of its column, so that an index finds it."""
    size: int
    """Bytes of the row as text."""
    at: int
    """Position in the listing."""


class PostgresqlReader:
    """Lists and reads the rows of a query.

    Args:
        settings: of the source.
        password: of the user in its URL; empty for none.
        max_bytes: of one row.
    """

    def __init__(self, settings: PostgresqlSettings, password: str, max_bytes: int) -> None:
        self._settings = settings
        self._password = password
        self._max_bytes = max_bytes
        self._selection = Selection(settings)
        self._connection: psycopg.AsyncConnection | None = None
        self._rows: dict[str, _Row] = {}
        self._order: list[str] = []
        self._ahead: dict[str, str] = {}
        """Rows that were read and not asked for yet, as JSON, by key."""
        self._next = 0
        """Position of the row after the last one that was read."""
        self._depth = 1
        """Rows that a read takes; it grows while they are read in order."""

    async def list_entries(self, cursor: str, skipped: Skipped) -> Listing | None:
        """List the rows, as `Reader.list_entries` does; a query has no cursor."""
        entries: list[Entry] = []
        async with self._transaction(_LIST_S) as connection:
            prefix = await self._check_columns(connection)
            async with connection.cursor(name="raglan") as rows:
                rows.itersize = _LISTED_AT_ONCE
                await rows.execute(
                    self._statement(
                        "SELECT q.{key}, q.{key}::text, md5(q::text), octet_length(q::text) "
                        "FROM {query}"
                    )
                )
                async for native, key, digest, size in rows:
                    self._take(entries, skipped, native, key, f"{prefix}.{digest}", size)
        return Listing(entries)

    async def read(self, entry: Entry, former: str) -> Content | None:
        """Read a row, as `Reader.read` does."""
        listed = self._rows[entry.key]
        if listed.size > self._max_bytes:
            raise SkippedDocumentError(
                f"The row {shortened(entry.key)} has {listed.size:,} bytes; the limit is "
                f"{self._max_bytes:,} (RAGLAN_INGESTER_MAX_DOCUMENT_BYTES)."
            )
        if entry.key not in self._ahead:
            follows = listed.at == self._next
            self._depth = min(2 * self._depth, _READ_AT_ONCE) if follows else 1
            self._ahead = await self._fetch(list(self._following(listed.at)))
        self._next = listed.at + 1
        row = self._ahead.pop(entry.key, None)
        return None if row is None else await asyncio.to_thread(self._content, entry.key, row)

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()

    def _take(
        self,
        entries: list[Entry],
        skipped: Skipped,
        native: object,
        key: str | None,
        version: str,
        size: int,
    ) -> None:
        if not key:
            skipped.add(f"A row has no {self._settings.key}.")
        elif key in self._rows:
            skipped.add(f"Several rows have the {self._settings.key} {shortened(key)}.")
        elif self._selection.is_chosen(key):
            self._rows[key] = _Row(native, size, len(self._order))
            self._order.append(key)
            entries.append(Entry(key, version))
            if len(entries) > self._settings.max_documents:
                raise too_many(self._settings.name, self._settings.max_documents)

    async def _check_columns(self, connection: psycopg.AsyncConnection) -> str:
        """Return a digest of what decides a document besides the values of its row."""
        found = await connection.execute(self._statement("SELECT * FROM {query} LIMIT 0"))
        types = {each.name: each.type_code for each in found.description or ()}
        for name in self._settings.columns:
            if name not in types:
                raise SourceUnavailable(
                    f"The query has no column {shortened(name)}; it has "
                    f"{shortened(', '.join(types))}."
                )
        if types[self._settings.key] == _REAL:
            raise SourceUnavailable(
                f"The key {shortened(self._settings.key)} is of type real, which does not compare "
                "exactly; cast it to text in the query."
            )
        settings = self._settings.model_dump(include={"key", "text", "title", "media_type"})
        decisive = json.dumps([list(types), settings], sort_keys=True)
        return hashlib.sha256(decisive.encode()).hexdigest()[:12]

    def _statement(self, text: str) -> sql.Composed:
        """Fill in the key and the query, which may end in a comment."""
        return sql.SQL(text).format(
            key=sql.Identifier(self._settings.key),
            query=sql.SQL(f"({self._settings.query}\n) q"),
        )

    def _following(self, at: int) -> Iterator[str]:
        """Yield the key at a position and those after it, which are likely read next."""
        size = 0
        for number, key in enumerate(self._order[at : at + self._depth]):
            size += self._rows[key].size
            if number and size > _READ_BYTES:
                return
            yield key

    async def _fetch(self, keys: list[str]) -> dict[str, str]:
        statement = self._statement(
            "SELECT q.{key}::text, to_jsonb(q)::text FROM {query} WHERE q.{key} = ANY($1)"
        )
        natives = [self._rows[key].key for key in keys]
        # A raw cursor, for which a % is a %.
        async with (
            self._transaction(_READ_S) as connection,
            psycopg.AsyncRawCursor(connection) as rows,
        ):
            await rows.execute(statement, (natives,))
            return dict(await rows.fetchall())

    def _content(self, key: str, json_row: str) -> Content:
        settings = self._settings
        try:
            row = json.loads(json_row)
            metadata = {
                name: value
                for name, value in row.items()
                if name not in {*settings.text, settings.title} and value is not None
            }
            document_metadata.check({**metadata, **metadata_of(settings)})
        except RaglanError as error:
            raise SkippedDocumentError(f"The row {shortened(key)}: {error.message}") from None
        except (ValueError, RecursionError):
            raise SkippedDocumentError(
                f"The row {shortened(key)} holds a number or a nesting that is too large."
            ) from None
        texts = [_text(row[name]) for name in settings.text if row[name] is not None]
        return Content(
            "\n\n".join(texts).encode(),
            media_type=settings.media_type,
            title=_text(row[settings.title] or "") if settings.title else "",
            metadata=metadata,
        )

    @asynccontextmanager
    async def _transaction(self, limit_s: float) -> AsyncIterator[psycopg.AsyncConnection]:
        """Run a read-only transaction of `limit_s` at most.

        Raises:
            SourceUnavailable: the server cannot be reached, or refuses the query.
        """
        try:
            async with asyncio.timeout(limit_s):
                connection = await self._connected()
                async with connection.transaction():
                    # The server's limit ends the work there too.
                    await connection.execute(
                        sql.SQL("SET LOCAL statement_timeout = {}").format(int(limit_s * 1000))
                    )
                    yield connection
        except TimeoutError:
            raise SourceUnavailable(f"The query did not end within {limit_s:g} s.") from None
        except psycopg.Error as error:
            raise SourceUnavailable(f"The query fails: {_first_line(error)}") from None

    async def _connected(self) -> psycopg.AsyncConnection:
        if self._connection is None or self._connection.closed:
            self._connection = await psycopg.AsyncConnection.connect(
                self._settings.url,
                password=self._password or None,
                autocommit=True,
                application_name="raglan",
                connect_timeout=_CONNECT_S,
                prepare_threshold=None,  # a pooler may give each statement another session
            )
            await self._connection.set_read_only(True)
        return self._connection


def _first_line(error: psycopg.Error) -> str:
    """Return what the server says, without the statement that it quotes after it."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
