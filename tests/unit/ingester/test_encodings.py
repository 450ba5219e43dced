"""Known sentences in many languages: right, or refused or named, never silently wrong."""

from __future__ import annotations

import re

import pytest
from known_sentences import LANGUAGES
from raglan_ingester.parsers import parse
from raglan_ingester.parsers.decoding import Decoded, decode_text
from raglan_ingester.parsers.parsed import Source, Unparsable, normalise

USUAL = [
    (language, encoding)
    for language, (_, encodings) in LANGUAGES.items()
    for encoding in (*encodings, "utf-8", "utf-8-sig", "utf-16", "utf-32")
]
SENTENCE_END = re.compile(r"(?<=[.。?])\s*")


def decoded(data: bytes, declared: str = "") -> Decoded | None:
    """Decode `data`; None if it is refused."""
    try:
        return decode_text(data, declared)
    except Unparsable:
        return None


@pytest.mark.parametrize(("language", "encoding"), USUAL)
def test_a_text_in_a_usual_encoding_comes_out_right(language: str, encoding: str) -> None:
    text = LANGUAGES[language].text

    assert decode_text(text.encode(encoding)).text == normalise(text)


@pytest.mark.parametrize(("language", "encoding"), USUAL)
def test_a_short_text_is_right_or_refused_or_named_in_a_warning(
    language: str, encoding: str
) -> None:
    text = LANGUAGES[language].text
    words = text.split()
    pieces = [*filter(None, SENTENCE_END.split(text)), *(" ".join(words[:n]) for n in (2, 4, 6))]

    for piece in pieces:
        found = decoded(piece.encode(encoding))
        assert found is None or found.text == normalise(piece) or found.warnings


@pytest.mark.parametrize(("language", "encoding"), USUAL)
def test_a_declared_encoding_that_fits_is_used(language: str, encoding: str) -> None:
    text = LANGUAGES[language].text
    first = next(filter(None, SENTENCE_END.split(text)))

    assert decode_text(first.encode(encoding), encoding) == Decoded(normalise(first))


@pytest.mark.parametrize("encoding", ["shift_jis", "cp1251", "iso-8859-2"])
@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        ('<meta charset="{}">', "text/html"),
        ('<meta http-equiv="Content-Type" content="text/html; charset={}">', "text/html"),
        ('<?xml version="1.0" encoding="{}"?>', "application/xhtml+xml"),
        ("", "text/html; charset={}"),
    ],
)
def test_a_page_says_its_encoding(encoding: str, head: str, media_type: str) -> None:
    word = {"shift_jis": "返品は可能", "cp1251": "Возврат", "iso-8859-2": "Zażółć"}[encoding]
    page = f"{head.format(encoding)}<p>{word}</p>".encode(encoding)

    assert parse(Source(page, "a.html", media_type.format(encoding))).text == word


def test_utf8_overrules_a_wrong_declaration() -> None:
    assert decode_text("Größe".encode(), "iso-8859-1").text == "Größe"


def test_one_bad_byte_costs_one_character() -> None:
    text = "Die Rückgabe ist möglich. Größe prüfen.\n" * 10

    found = decode_text(text.encode() + b"Zeile mit \xff hier.\n")

    assert found.text == text + "Zeile mit \ufffd hier.\n"
    assert found.warnings == ["1 place is no valid UTF-8 and became U+FFFD."]


@pytest.mark.parametrize(
    ("encoding", "text", "bad"),
    [
        ("cp1252", "Le garçon a mangé près du café.\n", b"\x81\n"),
        ("shift_jis", "返品は十四日以内に可能です。\n", b"\xff\n"),
        ("euc-kr", "반품은 십사 일 이내에 가능합니다.\n", b"\xff\n"),
    ],
)
def test_one_bad_byte_costs_one_character_in_other_encodings(
    encoding: str, text: str, bad: bytes
) -> None:
    found = decode_text((text * 12).encode(encoding) + bad)

    assert found.text.startswith(text * 12)
    assert found.text.count("\ufffd") == 1
    assert "became U+FFFD" in found.warnings[0]


def test_utf8_that_was_cut_inside_a_character_is_utf8() -> None:
    text = "网关在午夜重启。\n" * 20

    found = decode_text(text.encode()[:-2])

    assert found.text == text[:-2] + "\ufffd"
    assert found.warnings == ["The file ends inside a character of UTF-8; it may be cut."]


def test_an_accent_far_behind_plain_ascii_is_read() -> None:
    log = "A plain ASCII line of a server log.\n" * 9000

    assert decode_text(log.encode() + "Größe\n".encode("cp1252")).text == f"{log}Größe\n"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("language", ["German", "Russian", "Greek", "Hebrew"])
def test_utf16_without_its_mark_is_read(language: str, encoding: str) -> None:
    text = LANGUAGES[language].text

    assert decode_text(text.encode(encoding)).text == normalise(text)


@pytest.mark.parametrize(
    "data", [bytes(range(256)) * 40, b"before\0after", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" * 30]
)
def test_binary_data_is_no_text(data: bytes) -> None:
    assert decoded(data) is None
