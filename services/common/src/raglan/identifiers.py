"""The names that callers choose: ids of documents, names of collections.

Both become segments of a URL, and clients and proxies normalise paths before they send them on: a
name that a path can walk with would make the deletion of one thing the deletion of another.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import unquote

from raglan.errors import InvalidInput

MAX_DOCUMENT_ID_CHARS: Final = 512
COLLECTION_NAME: Final = r"^[a-z0-9][a-z0-9_-]{0,63}$"

_SHOWN_CHARS: Final = 80
_SEPARATOR: Final = re.compile(r"[/\\]")
_CONTROLS: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Control characters, halves of surrogate pairs, and the separators of lines and paragraphs."""


def check_document_id(document_id: str) -> str:
    """`document_id`, if a document may be called so.

    Raises:
        InvalidInput: its length, a control character, a leading slash, or a segment `.` or `..`.
    """
    if not 1 <= len(document_id) <= MAX_DOCUMENT_ID_CHARS:
        raise InvalidInput(
            f"The document id has {len(document_id)} characters; "
            f"1 to {MAX_DOCUMENT_ID_CHARS} are allowed."
        )
    shown = shortened(document_id)
    if any(unicodedata.category(character) in _CONTROLS for character in document_id):
        raise InvalidInput(f"The document id {shown} holds a control character.")
    if document_id[0] in "/\\":
        raise InvalidInput(f"The document id {shown} begins with a slash; leave it out.")
    # URL parsers take a backslash for a slash, and %2e for a dot.
    if any(unquote(segment) in (".", "..") for segment in _SEPARATOR.split(document_id)):
        raise InvalidInput(
            f"The document id {shown} has a segment '.' or '..', which clients resolve as a path; "
            "give the document another id."
        )
    return document_id


def check_collection_name(name: str) -> str:
    """`name`, if it may name a collection (and so a folder).

    Raises:
        InvalidInput: it may not.
    """
    if not re.fullmatch(COLLECTION_NAME[1:-1], name):
        raise InvalidInput(
            f"{shortened(name)} cannot name a collection: use 1 to 64 of a-z, 0-9, '_' and '-', "
            "the first a letter or digit."
        )
    return name


def shortened(name: str) -> str:
    """`name` in quotes, escaped and cut, as an error message shows it."""
    shown = repr(name[: _SHOWN_CHARS + 1])
    return shown if len(shown) <= _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]}...'"
