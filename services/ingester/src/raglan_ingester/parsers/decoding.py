"""Bytes to text: UTF-8 first, else what charset-normalizer finds, else a sentence."""

from __future__ import annotations

import codecs
from typing import Final

from raglan_ingester.parsers.parsed import Unparsable, normalise

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE_BYTES: Final = 256 * 1024
_MAX_CONTROL_SHARE: Final = 0.02
"""Above this share of control characters a "text" is something else."""


def decode(data: bytes) -> str:
    """The text in `data`, normalised.

    Raises:
        Unparsable: it is empty, or no text in any encoding.
    """
    if not data.strip():
        raise Unparsable("The file is empty.")
    text = _decode(data)
    if "\0" in text:
        raise Unparsable("The file holds null characters, so it is not text.")
    sample = text[:_SAMPLE_BYTES]
    controls = sum(character < " " and character not in "\t\n\r\f\x1b" for character in sample)
    if controls > _MAX_CONTROL_SHARE * len(sample) + 1:
        raise Unparsable("The file is not text: it holds binary data.")
    return normalise(text)


def _decode(data: bytes) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            try:
                return data.decode(encoding)
            except UnicodeDecodeError:
                break
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _guess(data)


def _guess(data: bytes) -> str:
    # Imported late: it takes longer than parsing most documents.
    from charset_normalizer import from_bytes

    matches = from_bytes(data[:_SAMPLE_BYTES])
    best = matches.best()
    for match in matches:
        # The code pages of Europe differ in a few letters; the most common one wins a tie.
        if best and match.encoding == "cp1252" and match.chaos <= best.chaos:
            best = match
    if best is None:
        raise Unparsable(
            "The file is not text in any encoding that could be recognised; save it as UTF-8."
        )
    try:
        return data.decode(best.encoding)
    except UnicodeDecodeError as error:
        raise Unparsable(
            f"The file looks like {best.encoding}, but byte {error.start} is not; save it as UTF-8."
        ) from None
