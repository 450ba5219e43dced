"""PDF: text with its pages, tables, headings and form values."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from parsed_documents import blocks, headings, items, pages, paragraphs, read, refusal, tables
from raglan.blocks import BlockKind
from raglan_ingester.parsers.parsed import ParsedDocument
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer, Table

Draw = Callable[[Canvas], None]


def drawn(*page_drawers: Draw, title: str | None = "A") -> ParsedDocument:
    buffer = io.BytesIO()
    canvas = Canvas(buffer, pagesize=A4)
    if title is not None:
        canvas.setTitle(title)
    for draw in page_drawers:
        draw(canvas)
        canvas.showPage()
    canvas.save()
    return read("a.pdf", buffer.getvalue())


def lines(*texts: str, top: float = 700, leading: float = 14, size: float = 12) -> Draw:
    """Draw lines of text one below the other."""

    def draw(canvas: Canvas) -> None:
        canvas.setFont("Helvetica", size)
        for number, text in enumerate(texts):
            canvas.drawString(72, top - number * leading, text)

    return draw


def set_pages(*flowables: object) -> ParsedDocument:
    buffer = io.BytesIO()
    SimpleDocTemplate(buffer).build(list(flowables))
    return read("a.pdf", buffer.getvalue())


def test_pages_are_numbered_and_lines_of_a_paragraph_joined() -> None:
    parsed = drawn(lines("The pump runs", "for six months."), lines("It is replaced."))

    assert parsed.text == "The pump runs for six months.\n\nIt is replaced."
    assert pages(parsed) == [
        (1, "The pump runs for six months."),
        (2, "It is replaced."),
    ]


def test_a_word_hyphenated_at_a_line_end_is_joined() -> None:
    parsed = drawn(lines("The maintenance inter-", "val of the circula-", "tion pump is short."))

    assert parsed.text == "The maintenance interval of the circulation pump is short."


def test_a_compound_that_occurs_with_its_hyphen_keeps_it() -> None:
    parsed = drawn(lines("It is a high-quality part and another high-", "quality part."))

    assert parsed.text == "It is a high-quality part and another high-quality part."


def test_a_word_hyphenated_at_the_end_of_a_page_is_joined() -> None:
    parsed = drawn(lines("The long sen-"), lines("tence goes on here."))

    assert parsed.text == "The long sentence goes on here."
    assert pages(parsed) == [(1, parsed.text), (2, "tence goes on here.")]


def test_page_headers_are_kept_once_and_page_numbers_not_at_all() -> None:
    def page(number: int) -> Draw:
        def draw(canvas: Canvas) -> None:
            canvas.drawString(72, 820, "ACME manual")
            canvas.drawString(280, 20, f"Page {number} of 4")
            canvas.drawString(72, 600, f"Chapter {'ABCD'[number - 1]} is about something else.")

        return draw

    text = drawn(*(page(number) for number in range(1, 5))).text

    assert text.count("ACME manual") == 1
    assert "Page" not in text
    assert text.count("Chapter") == 4


def test_a_table_has_its_columns_and_empty_cells() -> None:
    rows = [["Item", "Net", "Gross"], ["Bolt M8", "1.00", "1.19"], ["Nut M8", "", "0.59"]]

    parsed = set_pages(Paragraph("Prices of the year:"), Spacer(0, 20), Table(rows))

    assert tables(parsed) == [(True, rows)]
    assert paragraphs(parsed) == ["Prices of the year:"]


def test_a_second_line_of_a_cell_belongs_to_its_row() -> None:
    def draw(canvas: Canvas) -> None:
        for y, cells in (
            (700, ("Date", "Change")),
            (670, ("2024-01-02", "First draft for")),
            (656, ("", "discussion.")),
            (626, ("2024-03-04", "Second draft.")),
        ):
            for x, text in zip((72, 200), cells, strict=True):
                canvas.drawString(x, y, text)

    assert tables(drawn(draw))[0][1] == [
        ["Date", "Change"],
        ["2024-01-02", "First draft for discussion."],
        ["2024-03-04", "Second draft."],
    ]


def test_two_columns_of_prose_are_no_table() -> None:
    def draw(canvas: Canvas) -> None:
        for x, name in ((60, "left"), (320, "right")):
            for number in range(8):
                canvas.drawString(x, 700 - 14 * number, f"Line {number} of the {name} column here")

    parsed = drawn(draw)

    assert tables(parsed) == []
    assert parsed.text.index("right") > parsed.text.rindex("left")


def test_larger_fonts_are_headings_where_there_is_no_outline() -> None:
    def draw(canvas: Canvas) -> None:
        lines("Pump manual", size=24, top=760)(canvas)
        lines("Start", size=16, top=700)(canvas)
        lines("Open the inlet before you press the green button on the panel.", top=670)(canvas)

    parsed = drawn(draw)

    assert headings(parsed) == [(1, "Pump manual"), (2, "Start")]
    assert blocks(parsed, BlockKind.HEADING) == ["Pump manual", "Start"]


def test_entries_of_the_outline_are_found_in_the_text() -> None:
    def draw(canvas: Canvas) -> None:
        lines("1 Start", "Open the inlet.", leading=40)(canvas)
        canvas.bookmarkPage("start")
        canvas.addOutlineEntry("Start", "start")
        canvas.bookmarkPage("other")
        canvas.addOutlineEntry("Not in the text", "other", 1)

    parsed = drawn(draw)

    assert headings(parsed) == [(2, "Not in the text"), (1, "1 Start")]
    assert blocks(parsed, BlockKind.HEADING) == ["1 Start"]


def test_list_items_are_known_by_their_marks() -> None:
    parsed = set_pages(
        Paragraph("To start:"),
        *(Paragraph(text, bulletText=mark, style=ParagraphStyle("i", leftIndent=20))
          for mark, text in (("1.", "Open the inlet."), ("2.", "Press the button."))),
        Paragraph("Then wait."),
    )  # fmt: skip

    assert items(parsed) == [(1, "1", "Open the inlet."), (1, "2", "Press the button.")]
    assert "Then wait." in paragraphs(parsed)


def test_form_values_stand_behind_their_labels() -> None:
    def draw(canvas: Canvas) -> None:
        canvas.drawString(72, 700, "Applicant:")
        canvas.acroForm.textfield(name="a", x=150, y=694, width=200, height=20, value="Juniper Ltd")
        canvas.drawString(72, 650, "Country:")
        canvas.acroForm.choice(
            name="c", x=150, y=644, width=90, height=20, options=["Malta", "Peru"], value="Peru"
        )

    assert paragraphs(drawn(draw)) == ["Applicant: Juniper Ltd", "Country: Peru"]


def picture(canvas: Canvas) -> None:
    canvas.rect(72, 400, 300, 200, fill=1)


def test_pages_that_are_only_a_picture_are_named() -> None:
    text = lines("Words.")

    assert drawn(text, picture).warnings == ["Page 2 holds no text; it is probably a scan."]
    assert drawn(picture, text, picture, picture).warnings == [
        "Pages 1, 3-4 hold no text; they are probably scans."
    ]
    assert drawn(text, lambda canvas: None).warnings == []


@pytest.mark.parametrize("title", ["untitled", "(anonymous)", "Microsoft Word - ", "Document1"])
def test_a_title_that_says_nothing_is_ignored(title: str) -> None:
    assert drawn(lines("Words."), title=title).title == ""


def test_the_name_of_a_program_and_a_file_suffix_are_no_part_of_a_title() -> None:
    assert drawn(lines("Words."), title="Microsoft Word - Plan B.docx").title == "Plan B"


def test_a_page_that_is_drawn_without_end_is_refused_or_read() -> None:
    assert "broken" in refusal("a.pdf", b"%PDF-1.7\n1 0 obj\n<<" * 100)


def test_quotes_are_exact_with_ligatures_resolved() -> None:
    parsed = drawn(lines("The \ufb01rst of\ufb01ce."))

    assert "\ufb01" not in parsed.text
