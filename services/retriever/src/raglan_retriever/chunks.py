"""A chunk as the index keeps it."""

from __future__ import annotations

import base64
import json
import unicodedata
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from raglan import access_tags
from raglan.chunk_text import in_context
from raglan.errors import InvalidInput
from raglan.filtering import terms as metadata
from raglan.filtering.clauses import Terms
from raglan.identifiers import check_document_id, shortened

from raglan_retriever.validity import VERSION, Version

MAX_ID_CHARS: Final = 512
DOCUMENT_ID: Final = "document_id"
TERMS: Final = "terms"
NUMBERS: Final = "numbers"
ACCESS: Final = "access"
TENANT: Final = "tenant"
_NAMESPACE: Final = uuid.UUID("8d2ee9f0-6b0a-5f0c-9a3e-0d6f5a1c7b11")
_FIELDS: Final = (
    "chunk_id", "document_id", "ordinal", "title", "text", "start", "end", "heading_path",
    "metadata_json", "page", "structure", "language", "filename", "created_ms",
    "own_metadata_json", "gap_before",
)  # fmt: skip

SECTION: Final = "section"
STORED: Final = (*_FIELDS, SECTION, ACCESS, TENANT, VERSION)
"""The fields of the payload that a chunk is read back from."""

LABELLED: Final = (
    *(DOCUMENT_ID, "title", "filename", "created_ms", "own_metadata_json"),
    *("metadata_json", ACCESS, VERSION),
)
"""The fields of the payload that `labels` takes."""

_TAGGED: Final = "+"
"""Term of every chunk that has an access tag, and the beginning of the terms of its tags. Terms of
metadata begin with `[` or `#`, those of tenants with `@`."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document; the fields of `raglan.v1.Chunk`."""

    chunk_id: str
    document_id: str
    ordinal: int
    title: str
    text: str
    start: int
    end: int
    heading_path: tuple[str, ...]
    metadata_json: str
    page: int = 0
    """On which it begins, from 1; 0 where the format has no pages."""
    structure: bytes = b""
    """A serialized `raglan.v1.Structure` of the text; passed on as it is."""
    language: str = ""
    """ISO 639-1; empty where it is unknown."""

    filename: str = ""
    created_ms: int = 0
    """When the document was submitted, in milliseconds since 1970; 0 where it is not known."""
    own_metadata_json: str = ""
    """Metadata of this chunk alone, which changes of the document's leave as they are."""
    gap_before: str = ""
    """Text between the chunk before and this one; empty where there is none or it is not known."""
    section: tuple[int, int] | None = None
    """Positions of the first and the last chunk of its section; None where it has none."""
    access: tuple[str, ...] = ()
    """Tags of which a caller must hold one to find it; none for every caller."""
    version: Version | None = None
    """Its version of the document; None in collections that keep none."""
    tenant: str = ""
    """Its owner, as the store keeps it; `raglan_retriever.stores.tenants` writes and checks it."""

    @property
    def point_id(self) -> str:
        """Id of its point in a store."""
        return point_id(self.chunk_id)

    @property
    def lexical_text(self) -> str:
        """Text that the lexical leg searches."""
        return in_context(self.title, self.heading_path, self.text)

    def payload(self) -> dict[str, Any]:
        """Return the fields that a store keeps besides the vectors.

        Raises:
            InvalidInput: an id or the metadata is not acceptable; the message names the chunk.
        """
        if not 1 <= len(self.chunk_id) <= MAX_ID_CHARS:
            raise InvalidInput(
                f"A chunk_id has {len(self.chunk_id)} characters; it must have 1 to {MAX_ID_CHARS}."
            )
        check_document_id(self.document_id)
        try:
            named = labels(
                self.metadata_json, self.access,
                document_id=self.document_id, title=self.title, filename=self.filename,
                created_ms=self.created_ms, own_metadata_json=self.own_metadata_json,
                version=self.version,
            )  # fmt: skip
        except InvalidInput as error:
            raise InvalidInput(f"Chunk {shortened(self.chunk_id)}: {error.message}") from None
        stored = {name: getattr(self, name) for name in _FIELDS}
        return stored | {
            "heading_path": list(self.heading_path),
            SECTION: self.section and list(self.section),
            "structure": base64.b64encode(self.structure).decode(),
            **named,
        }

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> Chunk:
        """Read a stored chunk."""
        # Chunks stored by an earlier version lack what was added since.
        fields = {name: payload[name] for name in STORED if name in payload}
        return cls(
            **fields
            | {
                "heading_path": tuple(payload["heading_path"]),
                ACCESS: tuple(payload.get(ACCESS, ())),
                SECTION: _section(payload.get(SECTION)),
                VERSION: Version.from_payload(payload.get(VERSION)),
                "structure": base64.b64decode(payload.get("structure", "")),
            }
        )


def _section(stored: Sequence[int] | None) -> tuple[int, int] | None:
    return (stored[0], stored[1]) if stored else None


def labels(
    metadata_json: str,
    access: Sequence[str],
    *,
    document_id: str,
    title: str = "",
    filename: str = "",
    created_ms: int = 0,
    own_metadata_json: str = "",
    version: Version | None = None,
) -> dict[str, Any]:
    """Return the fields of a payload that metadata, access tags and filters are read from.

    They are the same for all chunks of a document, but for what is the chunk's own.

    Raises:
        InvalidInput: the metadata or a tag is not acceptable.
    """
    is_hidden = tuple(access) == access_tags.NOBODY
    tags = access_tags.NOBODY if is_hidden else access_tags.check(access)
    if own_metadata_json:
        metadata_json = _merged(metadata_json, own_metadata_json)
    created = datetime.fromtimestamp(created_ms / 1e3, UTC) if created_ms else None
    # Fields outside the metadata that filters accept, by their REST names.
    own = {
        "title": title,
        "filename": filename,
        "created_at": created.isoformat(timespec="milliseconds") if created else "",
    }
    indexed = metadata.index(metadata_json, document_id=document_id, also=own)
    named = {
        "metadata_json": metadata_json,
        ACCESS: list(tags),
        TERMS: [*indexed.terms, *([_TAGGED] if tags else ()), *map(access_term, tags)],
        NUMBERS: indexed.numbers,
    }
    if version is None:
        return named
    return named | {
        VERSION: version.payload(),
        TERMS: [*named[TERMS], *version.terms()],
        NUMBERS: {**indexed.numbers, **version.numbers()},
    }


def relabelled(
    fields: Mapping[str, Any],
    *,
    metadata_json: str | None = None,
    access: Sequence[str],
    version: Version | None = None,
) -> dict[str, Any]:
    """Return new labels of a chunk; those of an earlier version keep their metadata.

    Args:
        fields: the `LABELLED` fields of its payload.
        metadata_json: of the document; None leaves them as they are.
        access: tags of the document.
        version: its version from now on; None leaves it as it is.
    """
    known = {name: value for name, value in fields.items() if value is not None}
    present = known.pop("metadata_json")
    del known[ACCESS]
    version = version or Version.from_payload(known.pop(VERSION, None))
    if version is not None and version.is_earlier:
        metadata_json, access = None, version.access(tuple(access))
    kept = present if metadata_json is None else metadata_json
    return labels(kept, access, **{**known, VERSION: version})


def _merged(metadata_json: str, own_metadata_json: str) -> str:
    """Metadata of a document and of one of its chunks; the document's fields win."""
    try:
        merged = {**json.loads(own_metadata_json), **json.loads(metadata_json or "{}")}
    except (ValueError, TypeError, RecursionError):
        raise InvalidInput("The metadata of the chunk alone is not a JSON object.") from None
    return json.dumps(merged, separators=(",", ":"))


def access_term(tag: str = "") -> str:
    """Return the term of the chunks with an access tag; without one, of those with any."""
    return _TAGGED + tag


def of_documents(document_ids: Sequence[str]) -> Terms:
    """Return the clause that the chunks of these documents pass."""
    return Terms(tuple(metadata.term(DOCUMENT_ID, id_) for id_ in document_ids))


def duplicate_key(chunk: Chunk) -> tuple[str, str]:
    """Return a key that copies share: equal text below an equal innermost heading.

    Case, width and white space make no difference. The heading counts because short texts such as
    "Returns nothing." say something else below each.
    """
    heading = chunk.heading_path[-1] if chunk.heading_path else ""
    return _normalised(chunk.text), _normalised(heading)


def _normalised(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def point_id(chunk_id: str) -> str:
    """Return the id of the chunk's point: a UUID, as stores require."""
    return str(uuid.uuid5(_NAMESPACE, chunk_id))
