"""Values of the caches as bytes: versioned, dated and checked. A damaged one is none."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

_HEAD: Final = struct.Struct(">4sdd8s")
_MAGIC: Final = b"RGC1"
Form = TypeVar("Form", bound=Message)


class Layer(StrEnum):
    """A cache, as metrics, spans and keys in Redis name it."""

    EMBEDDING = "embedding"
    EVIDENCE = "evidence"
    ANSWER = "answer"
    SEMANTIC = "semantic"
    """Questions by meaning, each with its answer in the layer above."""


@dataclass(slots=True)
class Entry:
    """A cached value."""

    payload: bytes
    made_at: float
    """Seconds since 1970, by the clock of the gateway that made it."""
    cost_s: float
    """Time that making it took, which a hit saves."""
    rendered: bytes = field(default=b"", compare=False)
    """Body of the reply made from it, without what is a request's own; empty until one was sent."""

    def message(self, form: type[Form]) -> Form | None:
        """Return a copy of the value; None where it is not of this form."""
        try:
            return form.FromString(self.payload)
        except DecodeError:
            return None


def pack(entry: Entry) -> bytes:
    """Return the bytes from which `unpack` makes an equal entry."""
    head = (_MAGIC, entry.made_at, entry.cost_s)
    return _HEAD.pack(*head, _digest(*head, entry.payload)) + entry.payload


def unpack(packed: bytes) -> Entry | None:
    """Return the entry; None where it is of another version or damaged."""
    if len(packed) < _HEAD.size:
        return None
    magic, made_at, cost_s, digest = _HEAD.unpack_from(packed)
    payload = packed[_HEAD.size :]
    if magic != _MAGIC or digest != _digest(magic, made_at, cost_s, payload):
        return None
    return Entry(payload, made_at, cost_s)


def _digest(magic: bytes, made_at: float, cost_s: float, payload: bytes) -> bytes:
    hashed = hashlib.blake2b(struct.pack(">4sdd", magic, made_at, cost_s), digest_size=8)
    hashed.update(payload)
    return hashed.digest()
