"""Every format as its parser reads it, and what broken files are told."""

from __future__ import annotations

import io
import json
import zipfile

import pytest
from docx import Document
from pypdf import PdfReader, PdfWriter
from raglan_ingester.parsers import format_of, parse
from raglan_ingester.parsers.parsed import ParsedDocument, Source, Unparsable
from reportlab.pdfgen.canvas import Canvas


def read(name: str, data: bytes, media_type: str = "") -> ParsedDocument:
    return parse(Source(data, name, media_type))


def reason(name: str, data: bytes, media_type: str = "") -> str:
    with pytest.raises(Unparsable) as caught:
        read(name, data, media_type)
    return str(caught.value)


def headings(parsed: ParsedDocument) -> list[tuple[int, str, str]]:
    """(level, heading, the first line of its section)."""
    return [
        (heading.level, heading.text, parsed.text[heading.offset :].partition("\n")[0])
        for heading in parsed.headings
    ]


def pdf(*pages: str, password: str = "", title: str = "") -> bytes:
    buffer = io.BytesIO()
    canvas = Canvas(buffer)
    canvas.setTitle(title)
    for number, page in enumerate(pages):
        canvas.bookmarkPage(str(number))
        canvas.addOutlineEntry(f"Page {number + 1}", str(number))
        canvas.drawString(72, 700, page)
        canvas.showPage()
    canvas.save()
    if not password:
        return buffer.getvalue()
    writer = PdfWriter(clone_from=PdfReader(buffer))
    writer.encrypt(password if password != "owner" else "", owner_password="o", algorithm="AES-256")
    locked = io.BytesIO()
    writer.write(locked)
    return locked.getvalue()


def docx() -> bytes:
    document = Document()
    document.core_properties.title = "The manual"
    document.add_heading("Install", 1)
    document.add_paragraph("Run the command.")
    table = document.add_table(1, 2)
    table.rows[0].cells[0].text, table.rows[0].cells[1].text = "key", "value"
    document.add_heading("Pin", 2)
    document.add_paragraph("Set the device.")
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def test_markdown_keeps_its_source_and_knows_its_headings() -> None:
    text = "# The *title*\n\nIntro.\n\nSetext\n------\n\n```\n# no heading\n```\n"

    parsed = read("a.md", text.encode())

    assert parsed.text == text
    assert parsed.title == "The title"
    assert headings(parsed) == [(1, "The title", "# The *title*"), (2, "Setext", "Setext")]


def test_html_gives_what_a_reader_sees() -> None:
    page = (
        b"<title>Help &amp; more</title><nav>menu</nav><h1>Pin a <b>GPU</b></h1>"
        b"<p>Set <code>device</code>.<br>Then restart.</p><script>x()</script>"
        b"<ul><li>one</li><li>two</li></ul>"
    )

    parsed = read("a.html", page)

    assert parsed.text == "Pin a GPU\n\nSet device.\nThen restart.\n\n- one\n- two"
    assert parsed.title == "Help & more"
    assert headings(parsed) == [(1, "Pin a GPU", "Pin a GPU")]


def test_html_in_the_encoding_it_declares() -> None:
    page = '<meta charset="shift_jis"><p>こんにちは世界</p>'.encode("shift_jis")

    assert read("a.html", page).text == "こんにちは世界"


def test_pdf_gives_its_text_by_page_with_its_outline() -> None:
    parsed = read("a.pdf", pdf("The first page.", "The second page.", title="Two pages"))

    assert parsed.text == "The first page.\n\nThe second page."
    assert parsed.title == "Two pages"
    assert headings(parsed) == [
        (1, "Page 1", "The first page."),
        (1, "Page 2", "The second page."),
    ]


def test_a_pdf_locked_only_against_editing_is_read() -> None:
    assert read("a.pdf", pdf("Readable.", password="owner")).text == "Readable."


def test_docx_gives_paragraphs_and_tables_in_order() -> None:
    parsed = read("a.docx", docx())

    assert parsed.text == "Install\n\nRun the command.\n\n| key | value |\n\nPin\n\nSet the device."
    assert parsed.title == "The manual"
    assert headings(parsed) == [(1, "Install", "Install"), (2, "Pin", "Pin")]


def test_json_gives_each_field_by_its_path() -> None:
    data = json.dumps({"name": "Box", "size": {"w": 2, "tags": ["a", "b"]}}).encode()

    parsed = read("a.json", data)

    assert parsed.text == "name: Box\nsize.w: 2\nsize.tags: a, b"
    assert parsed.title == "Box"


def test_json_lines_give_each_record_that_is_not_small_a_section() -> None:
    long = "x" * 200
    lines = [{"title": "One", "n": long}, {"n": 1}, {"n": long}]
    parsed = read("a.jsonl", "\n\n".join(json.dumps(line) for line in lines).encode())

    assert headings(parsed) == [
        (1, "One", "title: One"),
        (1, "", "n: 1"),
        (1, "Record 3", f"n: {long}"),
    ]


def test_csv_gives_each_row_with_its_columns() -> None:
    assert read("a.csv", b'city;note\nParis;"big; old"\nRome;\n').text == (
        "city: Paris\nnote: big; old\n\ncity: Rome"
    )


def test_source_code_is_kept_as_it_is() -> None:
    code = "def f():\n\treturn 1\n"

    assert read("src/a.py", code.encode(), "application/octet-stream").text == code


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-32", "cp1252", "koi8-r", "gb18030"]
)
def test_text_in_another_encoding_is_read(encoding: str) -> None:
    text = {
        "koi8-r": "Быстрая коричневая лиса прыгает через ленивую собаку. " * 5,
        "gb18030": "敏捷的棕色狐狸跳过了懒狗。今天天气很好。我们去公园散步。" * 5,
    }.get(encoding, "Le garçon a mangé près du café où nous étions très heureux. " * 5)

    assert read("a.txt", text.encode(encoding)).text == text


def test_newlines_and_accents_are_stored_in_one_form() -> None:
    assert read("a.txt", "a\r\nb\rc e\u0301".encode()).text == "a\nb\nc \u00e9"


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.txt", b"", "The file is empty."),
        ("a.txt", b" \n\t ", "The file is empty."),
        ("a.md", b"", "The file is empty."),
        ("a.html", b"", "The file is empty."),
        ("a.html", b"<script>x</script>", "The document holds no text."),
        ("a.pdf", b"", "The file is empty."),
        ("a.pdf", b"%PDF-1.4 nonsense", "The PDF is broken"),
        ("a.pdf", pdf("Secret.", password="pass"), "The PDF is encrypted; remove its password"),
        ("a.pdf", pdf(""), "holds no text on its 1 pages: it is probably a scan"),
        ("a.docx", b"", "The file is empty."),
        ("a.docx", b"PK nonsense", "not a Word document"),
        ("a.json", b"{", "not valid JSON"),
        ("a.json", b"{}", "holds no text"),
        ("a.jsonl", b'{"a": 1}\nnope', "Line 2 is not valid JSON"),
        ("a.txt", bytes(range(256)) * 40, "not text"),
        ("a.exe", b"MZ", "Nothing reads this kind of file (.exe); supported are txt, md, html"),
        ("noname", b"x", "Nothing reads this kind of file"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_why(name: str, data: bytes, says: str) -> None:
    assert says in reason(name, data)


def test_a_zip_bomb_is_not_opened() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"\0" * 64 * 1024 * 1024)

    assert "looks like a zip bomb" in reason("a.docx", buffer.getvalue())


@pytest.mark.parametrize(
    ("name", "media_type", "format_"),
    [
        ("a.md", "text/plain", "markdown"),
        ("a.md", "application/octet-stream", "markdown"),
        ("", "text/plain; charset=utf-8", "text"),
        ("", "text/x-python", "text"),
        ("page", "text/html", "html"),
        ("A.PDF", "", "pdf"),
        ("deploy/Makefile", "", "code"),
        ("a.txt", "application/pdf", "pdf"),
        ("q1.notes", "text/markdown", "markdown"),
    ],
)
def test_the_format_follows_media_type_and_name(name: str, media_type: str, format_: str) -> None:
    assert format_of(Source(b"", name, media_type)) == format_
