"""The gateway's tables. A change here needs a revision in `versions`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

COUNTER = BigInteger().with_variant(Integer, "sqlite")
"""Type of an id that the database counts up: SQLite does so for INTEGER alone."""


class Base(DeclarativeBase):
    """Declarative base of the tables."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's protocol
        int: BigInteger,
        str: Text,
        list[str]: JSON,
        dict[str, Any]: JSON,
    }


class ApiKey(Base):
    """A key: what it may do, and the hashes of its secret and of the one before.

    A row stays when its key is revoked: keys are required for as long as there is any row.
    """

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    tenant: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[str]]
    collections: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """None for all."""
    access: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """Access tags; see `raglan_gateway.caller.held_tags`."""
    requests_per_minute: Mapped[int] = mapped_column(default=0)
    concurrent_requests: Mapped[int] = mapped_column(default=0)
    tokens_per_minute: Mapped[int] = mapped_column(default=0)
    hash: Mapped[bytes] = mapped_column(LargeBinary(32))
    former_hash: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    """Hash of the secret before the last rotation."""
    former_until_ms: Mapped[int | None]
    created_ms: Mapped[int] = mapped_column(index=True)
    rotated_ms: Mapped[int | None]
    expires_ms: Mapped[int | None]
    revoked_ms: Mapped[int | None]


class AuditEntry(Base):
    """One change: who did what, when, in which request. It never holds content."""

    __tablename__ = "audit_log"

    id: Mapped[int] = mapped_column(COUNTER, primary_key=True, autoincrement=True)
    at_ms: Mapped[int]
    caller: Mapped[str] = mapped_column(String(256))
    tenant: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(64))
    resource: Mapped[str]
    request_id: Mapped[str] = mapped_column(String(128))


class SessionRow(Base):
    """A conversation of one caller."""

    __tablename__ = "sessions"

    tenant: Mapped[str] = mapped_column(String(64), primary_key=True)
    caller: Mapped[str] = mapped_column(String(256), primary_key=True)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    title: Mapped[str]
    created_ms: Mapped[int]
    used_ms: Mapped[int] = mapped_column(index=True)


class AnswerRow(Base):
    """An answer as it was given, with what it was made from."""

    __tablename__ = "answers"
    __table_args__ = (Index("ix_answers_session", "tenant", "caller", "session_id", "created_ms"),)

    tenant: Mapped[str] = mapped_column(String(64), primary_key=True)
    caller: Mapped[str] = mapped_column(String(256), primary_key=True)
    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    session_id: Mapped[str | None] = mapped_column(String(64))
    created_ms: Mapped[int] = mapped_column(index=True)
    size: Mapped[int]
    """Bytes of `record`."""
    question: Mapped[str]
    answer: Mapped[str]
    record: Mapped[bytes] = mapped_column(LargeBinary)
    """Request and reply as JSON, compressed by zlib."""


class AnswerSource(Base):
    """A document that the passages of an answer are of; it goes with the answer."""

    __tablename__ = "answer_sources"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant", "caller", "answer_id"],
            ["answers.tenant", "answers.caller", "answers.id"],
            ondelete="CASCADE",
        ),
        Index("ix_answer_sources_document", "tenant", "collection", "document"),
    )

    tenant: Mapped[str] = mapped_column(String(64), primary_key=True)
    caller: Mapped[str] = mapped_column(String(256), primary_key=True)
    answer_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    collection: Mapped[str] = mapped_column(String(64), primary_key=True)
    document: Mapped[bytes] = mapped_column(LargeBinary(16), primary_key=True)
    """`raglan.cache.digest` of its id, which may be long."""


class FeedbackRow(Base):
    """Its caller's rating of an answer."""

    __tablename__ = "feedback"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant", "caller", "answer_id"],
            ["answers.tenant", "answers.caller", "answers.id"],
            ondelete="CASCADE",
        ),
    )

    tenant: Mapped[str] = mapped_column(String(64), primary_key=True)
    caller: Mapped[str] = mapped_column(String(256), primary_key=True)
    answer_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    rating: Mapped[str] = mapped_column(String(8))
    reasons: Mapped[list[str]]
    text: Mapped[str]
    passage: Mapped[str]
    """Id of the chunk that it is about; empty for the whole answer."""
    updated_ms: Mapped[int]


class DocumentChange(Base):
    """A document that is deleted or gets other access tags: kept answers of it go with that.

    A change of several documents has a row for each, with the same id.
    """

    __tablename__ = "document_changes"

    id: Mapped[str] = mapped_column(String(160), primary_key=True)
    document: Mapped[bytes] = mapped_column(LargeBinary(16), primary_key=True)
    """As in `AnswerSource`; empty for every document of the collection."""
    tenant: Mapped[str] = mapped_column(String(64))
    collection: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str | None] = mapped_column(String(64))
    """Job of the ingester that makes the change, once it is known."""
    began_ms: Mapped[int]
    ended_ms: Mapped[int | None] = mapped_column(index=True)
    """When no search found the text any more; None while the change is open."""
