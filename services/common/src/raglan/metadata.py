"""The limits of a document's metadata: stated once, checked at submission and by the index."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from raglan.errors import InvalidInput, PayloadTooLarge

MAX_BYTES: Final = 64 * 1024
"""Of the JSON object, in UTF-8 without blanks."""
MAX_VALUES: Final = 1000
MAX_DEPTH: Final = 16

Scalar = str | int | float | bool


def check(metadata: Mapping[str, Any], *, max_bytes: int = MAX_BYTES) -> None:
    """Raise if the index would refuse this metadata.

    Raises:
        PayloadTooLarge: more bytes than `max_bytes`.
        InvalidInput: deeper or wider than the limits here, or a number beyond 1.8e308.
    """
    values = 0
    for _, value in leaves(metadata):
        values += value is not None
        if values > MAX_VALUES:
            raise InvalidInput(f"The metadata has more than {MAX_VALUES:,} values, the limit.")
        if isinstance(value, int | float):
            as_float(value)
    size = len(_json(metadata))
    if size > max_bytes:
        raise PayloadTooLarge(f"The metadata has {size:,} bytes; the limit is {max_bytes:,}.")


def leaves(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Scalar | None]]:
    """(path, scalar) of each value, and (path, None) of each path that exists.

    Raises:
        InvalidInput: it is nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise InvalidInput(f"The metadata is nested deeper than {MAX_DEPTH} levels, the limit.")
    if isinstance(value, Mapping):
        if path:
            yield path, None
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else key, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, path, depth + 1)
    elif value is not None:
        yield path, None
        yield path, value


def as_float(value: float) -> float:
    """A number as ranges compare it. Raises InvalidInput beyond 1.8e308."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidInput("The metadata holds a number beyond 1.8e308, the limit.")
    return number


def _json(metadata: Mapping[str, Any]) -> bytes:
    text = json.dumps(metadata, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")
