"""Bytes to text: UTF-8, then what is declared, then what chardet recognises, else a sentence.

A wrong encoding is worse than none, because it is not noticed: a guess whose text mixes scripts
inside words or holds control characters is refused. See docs/decisions/parsing.md for what was
measured.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Final

from raglan_ingester.parsers.parsed import Unparsable, normalise

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CANDIDATES: Final = (
    *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257"),
    *("iso8859-1", "iso8859-2", "iso8859-5", "iso8859-6", "iso8859-7", "iso8859-8", "iso8859-9"),
    *("iso8859-13", "iso8859-15", "koi8-r", "koi8-u", "cp866", "shift_jis", "cp932", "euc-jp"),
    *("euc-kr", "cp949", "gb18030", "big5", "tis-620", "cp874"),
)
"""Encodings in use; rarer ones only make the detection worse."""
_SUPERSETS: Final = {
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "shift_jis": "cp932",
    "shift_jis_2004": "cp932",
    "euc_jis_2004": "euc_jp",
    "euc_kr": "cp949",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "tis-620": "cp874",
    "big5": "big5hkscs",
    "ascii": "cp1252",
}
"""Codec names to those that decode the same and more, as browsers take them."""
_SAMPLE_BYTES: Final = 128 * 1024
_SLICES: Final = 8
_SURE: Final = 0.5
_VOTE_SHARE: Final = 0.8
"""Of the confidence for the whole that the slices' must reach to overrule it."""
_UNSURE: Final = 0.1
"""Confidence of chardet below which short texts were mistaken."""
_CONTROL_SAMPLE_CHARS: Final = 256 * 1024
_MAX_CONTROL_SHARE: Final = 0.02
"""Above this share of control characters a "text" is something else."""
_VALID_TO_BAD: Final = 4
"""A text is UTF-8 with errors if it holds so many valid sequences for each invalid one."""
_MAX_BAD_SHARE: Final = 0.001
_DECLARED_IN_BYTES: Final = 4096
_META_CHARSET: Final = re.compile(rb"""<meta[^>]+charset\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
_XML_DECLARATION: Final = re.compile(rb"""^\s*<\?xml[^>]+encoding\s*=\s*["']([\w.:-]+)""")
_MEDIA_TYPE_CHARSET: Final = re.compile(r"""charset\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_BINARY: Final = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffd]")
_PAGES: Final = 3
_MIN_PAGES_SHARE: Final = 0.9
"""Of the characters of an alphabetic script, so many lie in three pages of 256."""
_NO_CHARACTER: Final = re.compile("[\x80\xa0\uf8f0-\uf8f3]")
"""Characters that Python's cp932 decodes from bytes that begin no character."""
_C1: Final = re.compile("[\u0080-\u0084\u0086-\u009f]")
_LATIN: Final = "A-Za-z\u00c0-\u024f"
_OTHER: Final = "\u0370-\u052f\u0590-\u06ff\u0e00-\u0e7f"
_MIXED: Final = re.compile(f"[{_LATIN}][{_OTHER}]|[{_OTHER}][{_LATIN}]")
_LETTERS_BEYOND_ASCII: Final = re.compile("[\u00c0-\uffff]")
_MAX_MIXED_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Decoded:
    """Decoded text of a file."""

    text: str
    """Normalised."""
    warnings: list[str] = field(default_factory=list)


def decode_text(data: bytes, declared: str = "") -> Decoded:
    """The text in `data`, normalised.

    Args:
        data: a text file.
        declared: the name of the encoding that the file or its sender states; it is used where
            the bytes are no UTF-8 and fit it.

    Raises:
        Unparsable: it is empty, or no text in any encoding that can be detected.
    """
    if not data.strip():
        raise Unparsable("The file is empty.")
    decoded = _decode(data, declared)
    if "\0" in decoded.text:
        raise Unparsable("The file holds null characters, so it is not text.")
    sample = decoded.text[:_CONTROL_SAMPLE_CHARS]
    if len(_CONTROL.findall(sample)) > _MAX_CONTROL_SHARE * len(sample) + 1:
        raise Unparsable("The file is not text: it holds binary data.")
    return Decoded(normalise(decoded.text), decoded.warnings)


def declared_in_html(data: bytes, media_type: str = "") -> str:
    """The encoding that an HTML or XML file or its media type states; empty for none."""
    if match := _MEDIA_TYPE_CHARSET.search(media_type):
        return match[1]
    head = data[:_DECLARED_IN_BYTES]
    found = _XML_DECLARATION.search(head) or _META_CHARSET.search(head)
    return found[1].decode("ascii") if found else ""


def declared_in_media_type(media_type: str) -> str:
    """The `charset` of a media type; empty for none."""
    match = _MEDIA_TYPE_CHARSET.search(media_type)
    return match[1] if match else ""


def _decode(data: bytes, declared: str) -> Decoded:
    if encoding := _marked(data) or _without_mark(data):
        return _with_replacements(data, encoding)
    if (text := _escaped(data)) is not None or (text := _strict(data, "utf-8")) is not None:
        return Decoded(text)
    text = _strict(data, _codec(declared))
    if text is not None and not _C1.search(text):
        return Decoded(text)
    if _is_utf8_with_errors(data):
        return _with_replacements(data, "utf-8")
    return _guess(data)


def _marked(data: bytes) -> str:
    """The encoding whose byte order mark the file begins with; empty for none."""
    return next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "")


def _escaped(data: bytes) -> str | None:
    """The text of a 7-bit encoding that switches character sets by escape sequences."""
    if b"\x1b$" not in data and b"\x1b(" not in data:
        return None
    found = (_strict(data, encoding) for encoding in ("iso2022_jp_2", "iso2022_kr"))
    return next((text for text in found if text is not None), None)


def _strict(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding) if encoding else None
    except (UnicodeDecodeError, LookupError):
        return None


def _codec(name: str) -> str:
    """Python's name of an encoding, or of what contains it; empty if there is none."""
    try:
        found = codecs.lookup(name).name if name else ""
    except LookupError:
        return ""
    return _SUPERSETS.get(found, found)


def _without_mark(data: bytes) -> str:
    """UTF-16 that lacks its byte order mark: its characters come from a few Unicode pages."""
    sample = data[:_SAMPLE_BYTES]
    if 0 not in sample or len(data) % 2:
        return ""
    sample = sample[: len(sample) // 2 * 2]
    for encoding, high_bytes in (("utf-16-le", sample[1::2]), ("utf-16-be", sample[::2])):
        common = sum(count for _, count in Counter(high_bytes).most_common(_PAGES))
        text = sample.decode(encoding, errors="replace")
        if common >= _MIN_PAGES_SHARE * len(high_bytes) and not _BINARY.search(text):
            return encoding
    return ""


def _is_utf8_with_errors(data: bytes) -> bool:
    text = data.decode("utf-8", errors="replace")
    bad = text.count("\ufffd") - data.count("\ufffd".encode())
    valid = sum(1 for _ in re.finditer("[^\x00-\x7f\ufffd]", text))
    return valid >= _VALID_TO_BAD * bad


def _with_replacements(data: bytes, encoding: str) -> Decoded:
    """Decode; what is no character becomes U+FFFD and is named in a warning."""
    name = encoding.upper()
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        text = data.decode(encoding, errors="replace")
        if error.end == len(data) and error.reason in ("unexpected end of data", "truncated data"):
            return Decoded(text, [f"The file ends inside a character of {name}; it may be cut."])
    if encoding == "cp932":
        text = _NO_CHARACTER.sub("\ufffd", text)
    count = text.count("\ufffd") - data.count("\ufffd".encode(encoding, errors="ignore") or b"\0")
    if count <= 0:
        return Decoded(text)
    what = "1 place is" if count == 1 else f"{count:,} places are"
    return Decoded(text, [f"{what} no valid {name} and became U+FFFD."])


def _guess(data: bytes) -> Decoded:
    sample = _sample(data)
    encoding, confidence = _detect(sample)
    slices = [part for part in _sliced(sample) if not part.isascii()]
    if confidence < _SURE and len(slices) > 1:
        encoding, confidence = _vote(slices, encoding, confidence)
    encoding = _codec(encoding)
    if not encoding:
        raise Unparsable(_UNKNOWN)
    text = data.decode(encoding, errors="replace")
    bad = text.count("\ufffd")
    if bad > 1 + _MAX_BAD_SHARE * len(text) or not _is_plausible(sample, encoding):
        raise Unparsable(_UNKNOWN)
    decoded = _with_replacements(data, encoding)
    if confidence < _UNSURE:
        decoded.warnings.append(
            f"The file is not UTF-8 and holds few characters to recognise its encoding by; it was "
            f"read as {encoding}. Save it as UTF-8 to be sure."
        )
    return decoded


_UNKNOWN: Final = "The file is not text in any encoding that could be recognised; save it as UTF-8."


def _sample(data: bytes) -> bytes:
    """The lines that are not ASCII, wherever they are: only they tell an encoding."""
    if len(data) <= _SAMPLE_BYTES:
        return data
    lines: list[bytes] = []
    size = 0
    for line in data.splitlines(keepends=True):
        if not line.isascii():
            lines.append(line[:_SAMPLE_BYTES])
            size += len(lines[-1])
            if size > _SAMPLE_BYTES:
                break
    return b"".join(lines)


def _sliced(sample: bytes) -> list[bytes]:
    lines = sample.splitlines(keepends=True)
    step = max(1, -(-len(lines) // _SLICES))
    return [b"".join(lines[at : at + step]) for at in range(0, len(lines), step)]


def _detect(sample: bytes) -> tuple[str, float]:
    # Imported late: it takes longer than parsing most documents.
    import chardet

    found = chardet.detect(
        sample, include_encodings=_CANDIDATES, compat_names=False, max_bytes=_SAMPLE_BYTES
    )
    return found["encoding"] or "", float(found["confidence"])


def _vote(slices: list[bytes], encoding: str, confidence: float) -> tuple[str, float]:
    """The encoding that most slices have: one bad byte rules out the right one for the whole."""
    votes: Counter[str] = Counter()
    sums: defaultdict[str, float] = defaultdict(float)
    for part in slices:
        name, sure = _detect(part)
        votes[_codec(name)] += 1
        sums[_codec(name)] += sure
    winner, count = votes.most_common(1)[0]
    mean = sums[winner] / count
    is_better = count > len(slices) / 2 and mean > _VOTE_SHARE * confidence
    return (winner, mean) if is_better else (encoding, confidence)


def _is_plausible(sample: bytes, encoding: str) -> bool:
    """Return whether the text has no words of two scripts and no control characters."""
    text = sample.decode(encoding, errors="replace")
    letters = len(_LETTERS_BEYOND_ASCII.findall(text))
    return not _C1.search(text) and len(_MIXED.findall(text)) <= _MAX_MIXED_SHARE * letters
