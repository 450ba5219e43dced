"""Documents made to hurt: bounded in time and memory, refused with a sentence or cut."""

from __future__ import annotations

import asyncio
import io
import json
import zlib
from email.message import EmailMessage
from pathlib import Path

import pytest
import xlsxwriter
from parsed_documents import archive, read, refusal
from raglan_ingester.chunking import Sizes, chunk
from raglan_ingester.parsers import records
from raglan_ingester.parsers.parsed import Unparsable
from raglan_ingester.parsing import CutDocument, ParseRequest, ParserPool

MIB = 1024 * 1024


def confined(folder: Path, name: str, data: bytes) -> CutDocument:
    """Parse in a process of its own, as the ingester does."""
    path = folder / name
    path.write_bytes(data)

    async def run() -> CutDocument:
        pool = ParserPool(workers=1, memory_bytes=512 * MIB, cpu_s=20, wall_s=60)
        try:
            return await pool.parse(ParseRequest(path, name, "", Sizes(1200)))
        finally:
            await pool.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("name", "data", "most"),
    [
        ("a.jsonl", b"1\n" * 10_000, 50),
        ("a.json", b'[{"a":1}' + b',{"b":2}' * 10_000 + b"]", 100),
        ("a.csv", b"a,b\n" + b"1,2\n" * 10_000, 200),
        ("a.md", b"# a\n" * 5_000, 500),
        ("a.html", b"<h1>a</h1>" * 5_000, 500),
        ("a.txt", b"a\n\n" * 10_000, 50),
    ],
)
def test_a_small_file_makes_few_chunks(name: str, data: bytes, most: int) -> None:
    parsed = read(name, data)

    assert len(chunk(parsed, Sizes(1200))) <= most


@pytest.mark.parametrize("tag", ["<div>", "<div>a ", "<table><tr><td>x ", "<ul><li>x ", "<b>"])
def test_a_page_of_very_deep_nesting_is_refused_before_it_is_parsed(tag: str) -> None:
    assert "000 elements inside each other" in refusal("a.html", tag.encode() * 100_000)


def test_many_elements_beside_each_other_are_no_nesting() -> None:
    rows = b"<tr><td>a<td>b<br>" * 5_000
    page = b"<p>One<p>Two" * 5_000 + b"<table>" + rows + b"</table>" + b"<div>x</div>" * 5_000

    assert read("a.html", page).text.count("x") == 5_000


def test_a_stray_cell_in_the_last_corner_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    book = xlsxwriter.Workbook(path)
    sheet = book.add_worksheet()
    sheet.write("A1", "Hello")
    sheet.write(1_048_575, 16_383, "stray")
    book.close()

    assert "1,048,576 rows by 16,384 columns" in refusal("a.xlsx", path.read_bytes())


_ODS = "urn:oasis:names:tc:opendocument:xmlns:"
_SHEET = (
    f'<office:document-content xmlns:office="{_ODS}office:1.0" xmlns:table="{_ODS}table:1.0" '
    f'xmlns:text="{_ODS}text:1.0"><office:body><office:spreadsheet><table:table table:name="S">'
    "%s</table:table></office:spreadsheet></office:body></office:document-content>"
)
_CELL = '<table:table-cell%s office:value-type="string"><text:p>%s</text:p></table:table-cell>'
_ODS_ROW = "<table:table-row%s>%s</table:table-row>"


def ods(*rows: tuple[str, str]) -> bytes:
    """A sheet of (attributes, cells) of rows."""
    kind = "application/vnd.oasis.opendocument.spreadsheet"
    manifest = f'<m:manifest xmlns:m="{_ODS}manifest:1.0"/>'
    content = _SHEET % "".join(_ODS_ROW % row for row in rows)
    return archive({"mimetype": kind, "META-INF/manifest.xml": manifest, "content.xml": content})


def test_repeated_cells_of_ods_are_not_laid_out() -> None:
    skipped = '<table:table-cell table:number-columns-repeated="16383"/>'
    rows = ' table:number-rows-repeated="1048574"'
    corner = ods(("", _CELL % ("", "a")), (rows, skipped), ("", skipped + _CELL % ("", "z")))
    assert "1,048,576 rows by 16,384 columns" in refusal("a.ods", corner)
    many = _CELL % (' table:number-columns-repeated="500"', "word " * 2000)
    long = ods((' table:number-rows-repeated="1000"', many))
    assert "cells hold 5,000,000,000 characters" in refusal("a.ods", long)


_LONG = "word " * 2000


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", f"<table><tr><td rowspan=65534>{_LONG}<td>a" + "<tr><td>b" * 60_000),
        ("a.html", "<table>" + f"<tr><th colspan=1000>{_LONG}" * 30 + "</table>"),
    ],
)
def test_text_that_spans_make_countless_is_refused(name: str, text: str) -> None:
    assert "longer than 67,108,864 characters" in refusal(name, text.encode())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", "<table><tr><td colspan=1000 rowspan=65534>abc" + "<tr><td>b" * 30_000),
        ("a.html", "<table><tr><td colspan=1000 rowspan=2>abc<tr><td>b</table>" * 600),
        ("a.csv", ",".join("x" * 100_000) + "\n" + "y,z\n" * 50_000),
        ("a.adoc", "= T\n\n|===\n" + "1000+|x\n" * 2_000 + "|===\n"),
    ],
)
def test_cells_that_spans_make_countless_are_cut_with_a_warning(name: str, text: str) -> None:
    document = read(name, text.encode())
    assert len(document.text) < 5_000_000
    assert any("500,000 cells" in warning for warning in document.warnings)


def test_more_chunks_than_the_limit_are_refused_with_a_sentence() -> None:
    parsed = read("a.txt", b"Some words. " * 2_000)

    with pytest.raises(Unparsable, match=r"10 chunks.*RAGLAN_INGESTER_MAX_CHUNKS_PER_DOCUMENT"):
        chunk(parsed, Sizes(1200, max_chunks=10))


def pdf_bomb(unpacked_bytes: int) -> bytes:
    """A page whose content stream unpacks to so many bytes."""
    packer = zlib.compressobj(9)
    operators = b"BT /F1 1 Tf (x) Tj ET\n" * 50_000
    parts = [packer.compress(operators) for _ in range(unpacked_bytes // len(operators))]
    content = b"".join(parts) + packer.flush()
    objects = (
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Resources<</Font<</F1 5 0 R>>>>"
        b"/Contents 4 0 R>>",
        b"<</Length %d/Filter/FlateDecode>>stream\n%b\nendstream" % (len(content), content),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    )
    body = b"%PDF-1.4\n"
    offsets = []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    entries = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    table = b"xref\n0 6\n0000000000 65535 f \n%btrailer<</Size 6/Root 1 0 R>>\n" % entries
    return body + table + b"startxref\n%d\n%%%%EOF" % len(body)


def test_a_pdf_bomb_fails_alone(tmp_path: Path) -> None:
    with pytest.raises(Unparsable, match="needs too much memory|needed more than|took more than"):
        confined(tmp_path, "bomb.pdf", pdf_bomb(500 * MIB))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("a.docx", "word/document.xml"),
        ("a.xlsx", "xl/worksheets/sheet1.xml"),
        ("a.pptx", "ppt/presentation.xml"),
        ("a.odt", "content.xml"),
        ("a.epub", "OEBPS/chapter.xhtml"),
    ],
)
def test_zip_bombs_are_not_opened(name: str, part: str) -> None:
    assert "zip bomb" in refusal(name, archive({part: b"\0" * 64 * MIB}))


@pytest.mark.parametrize("name", ["a.odt", "a.epub", "a.docx"])
def test_xml_entities_are_not_expanded(name: str) -> None:
    lol = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<!DOCTYPE a [<!ENTITY l0 "lol">{lol}]><a>&l9;</a>'
    parts = ("content.xml", "META-INF/container.xml", "[Content_Types].xml")

    assert refusal(name, archive(dict.fromkeys(parts, bomb)))


def test_a_sheet_of_many_rows_is_cut_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raglan_ingester.parsers.spreadsheet.MAX_TABLE_CELLS", 1000)
    buffer = io.BytesIO()
    with xlsxwriter.Workbook(buffer) as book:
        sheet = book.add_worksheet("Rows")
        for row in range(5_000):
            sheet.write_row(row, 0, (f"row {row}", row))

    document = read("a.xlsx", buffer.getvalue())

    assert document.text.count("\n") < 600
    assert "Only the first 1,000 cells of the file were read" in document.warnings[0]


def test_rows_without_a_header_are_cut_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raglan_ingester.parsers.csv_rows.MAX_TABLE_CELLS", 300)

    document = read("a.csv", b"1,2,3\n" * 500)

    assert document.warnings == ["Only the first 100 rows of the file were read."]
    assert records.MAX_TABLE_CELLS > 300


def test_a_large_table_is_cut_into_chunks_quickly(tmp_path: Path) -> None:
    document = confined(tmp_path, "a.csv", b"1,2,3\n" * 150_000)

    assert len(document.chunks) > 1000


def test_deeply_attached_messages_end_in_a_warning() -> None:
    mail = EmailMessage()
    mail["Subject"], mail["From"] = "innermost", "a@a.test"
    mail.set_content("deep")
    for number in range(40):
        outer = EmailMessage()
        outer["Subject"], outer["From"] = f"level {number}", "a@a.test"
        outer.set_content(f"text {number}")
        outer.add_attachment(mail)
        mail = outer

    document = read("a.eml", bytes(mail))

    assert "text 39" in document.text
    assert len(document.warnings) == 1


def test_an_email_of_a_thousand_attachments_is_cut_with_a_warning() -> None:
    mail = EmailMessage()
    mail["Subject"] = "many"
    mail.set_content("body")
    for number in range(150):
        mail.add_attachment(f"text {number}", filename=f"{number}.txt")

    document = read("a.eml", bytes(mail))

    assert document.warnings == ["Only the first 100 of 150 attachments were read."]


def test_a_notebook_with_huge_outputs_is_cut(tmp_path: Path) -> None:
    outputs = [
        {"output_type": "stream", "text": "y" * 12 * MIB},
        {"output_type": "display_data", "data": {"image/png": "A" * 12 * MIB}},
    ]
    cells = [{"cell_type": "code", "source": "x = 1", "outputs": outputs}]

    document = confined(tmp_path, "a.ipynb", json.dumps({"nbformat": 4, "cells": cells}).encode())

    assert len(document.text) < 5_000
    assert document.warnings


@pytest.mark.parametrize(
    "name", ["a.txt", "a.md", "a.html", "a.py", "a.csv", "a.rst", "a.org", "a.adoc", "a.rtf"]
)
def test_a_word_of_a_megabyte_is_read(tmp_path: Path, name: str) -> None:
    head = b"{\\rtf1 " if name == "a.rtf" else b""

    document = confined(tmp_path, name, head + b"a" * MIB)

    assert len(document.text) >= MIB
    assert len(document.chunks) > 800


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.html", b"<ul><li>" * 4_000 + b"deep"),
        ("a.html", b"<blockquote>" * 4_000 + b"deep"),
        ("a.html", b"<dl><dt>" * 4_000 + b"deep"),
        ("a.html", b"<table><tr><td>" * 4_000 + b"deep"),
        ("a.html", b"<table>" + b"<tr><td rowspan=65534 colspan=1000>deep" * 100),
        ("a.rtf", b"{\\rtf1 " + b"{" * 300_000 + b"deep"),
        ("a.org", b"*a " * 20_000 + b"deep"),
        ("a.adoc", b"+a " * 20_000 + b"deep"),
        ("a.eml", b"Subject: x\n\n" + b"> " * 100_000 + b"deep"),
        ("a.txt", b"".join(b" " * n + b"- deep\n" for n in range(1_500))),
    ],
)
def test_deep_and_repeated_markup_is_read(tmp_path: Path, name: str, data: bytes) -> None:
    assert "deep" in confined(tmp_path, name, data).text


def test_what_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    lists = b"".join(b" " * depth + b"- x\n\n" for depth in range(1_500))

    with pytest.raises(Unparsable, match="nested too deeply"):
        confined(tmp_path, "a.rst", lists)
