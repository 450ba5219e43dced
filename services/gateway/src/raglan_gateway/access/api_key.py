"""The form of an API key: `rgl_<id>_<secret>`.

Stored is the SHA-256 of the secret alone. A slow hash protects secrets that somebody could guess;
this one is 256 random bits, which nobody can, and a slow hash would cost every request.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Final, NamedTuple

from raglan.errors import Unauthenticated

PREFIX: Final = "rgl_"
_ID_BYTES: Final = 6
_SECRET_BYTES: Final = 32
_FORM: Final = re.compile(r"rgl_([0-9a-f]{12})_([0-9a-f]{64})")
KEY_CHARS: Final = len(PREFIX) + 2 * _ID_BYTES + 1 + 2 * _SECRET_BYTES


class Presented(NamedTuple):
    """A key as a request holds it."""

    id: str
    hash: bytes


def new_id() -> str:
    """Make the id of a key: public, 48 random bits."""
    return secrets.token_hex(_ID_BYTES)


def new_key(id_: str) -> tuple[str, bytes]:
    """Make a key with the given id; return it with the hash of its secret."""
    secret = secrets.token_hex(_SECRET_BYTES)
    return f"{PREFIX}{id_}_{secret}", digest(secret)


def parse(text: str) -> Presented:
    """Return the id and the hash of a key.

    Raises:
        Unauthenticated: it does not have the form of a key; the message does not repeat it.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise Unauthenticated(
            f"The key is damaged: it has {len(text)} characters, where a whole one has {KEY_CHARS} "
            "(rgl_, 12 and 64 hexadecimal digits). Copy it again, or rotate it."
        )
    return Presented(found[1], digest(found[2]))


def digest(secret: str) -> bytes:
    """Return the SHA-256 of a secret."""
    return hashlib.sha256(secret.encode()).digest()
