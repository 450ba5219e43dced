"""Spreadsheets, presentations, OpenDocument, EPUB, RTF."""

from __future__ import annotations

import io
from datetime import date
from typing import Any

import xlsxwriter
from parsed_documents import (
    archive,
    blocks,
    headings,
    items,
    pages,
    paragraphs,
    read,
    refusal,
    tables,
)
from pptx import Presentation
from pptx.util import Inches
from raglan.blocks import BlockKind
from raglan_ingester.parsers.parsed import ParsedDocument


def workbook(sheets: dict[str, list[list[Any]]], hidden: str = "") -> ParsedDocument:
    buffer = io.BytesIO()
    with xlsxwriter.Workbook(buffer) as book:
        day = book.add_format({"num_format": "yyyy-mm-dd"})
        for name, rows in sheets.items():
            sheet = book.add_worksheet(name)
            if name == hidden:
                sheet.hide()
            for row, values in enumerate(rows):
                for column, value in enumerate(values):
                    if isinstance(value, date):
                        sheet.write_datetime(row, column, value, day)
                    elif value is not None:
                        sheet.write(row, column, value)
    return read("a.xlsx", buffer.getvalue())


def test_a_sheet_is_a_section_with_its_tables() -> None:
    parsed = workbook(
        {
            "Prices": [
                ["Prices of the year"],
                ["Part", "Net", "Since", "In stock"],
                ["Bolt", 1.5, date(2024, 3, 1), True],
                ["Nut", 2, None, False],
                [],
                ["Note", "Value"],
                ["tax", 0.19],
            ],
            "Sheet2": [["only words"]],
        }
    )

    assert headings(parsed) == [(1, "Prices")]
    assert paragraphs(parsed) == ["Prices of the year", "only words"]
    assert tables(parsed) == [
        (
            True,
            [
                ["Part", "Net", "Since", "In stock"],
                ["Bolt", "1.5", "2024-03-01", "TRUE"],
                ["Nut", "2", "", "FALSE"],
            ],
        ),
        (True, [["Note", "Value"], ["tax", "0.19"]]),
    ]


def test_hidden_sheets_are_left_out_and_named() -> None:
    parsed = workbook({"A": [["x", "y"], [1, 2]], "Secret": [["z"]]}, hidden="Secret")

    assert "z" not in parsed.text
    assert parsed.warnings == ['The hidden sheet "Secret" was left out.']


def test_columns_beyond_the_limit_are_left_out_with_a_warning() -> None:
    parsed = workbook({"Wide": [["a", "b"], ["1", "2"], [None] * 1_200 + ["far"]]})

    assert "far" not in parsed.text
    assert parsed.warnings == [
        'Only the first 1,000 of 1,201 columns of the sheet "Wide" were read.'
    ]


def test_long_texts_in_cells_are_records_under_their_names() -> None:
    parsed = workbook({"Sheet1": [["id", "body"], [7, "word " * 300], [8, "short"]]})

    assert headings(parsed) == [(1, "id: 7"), (1, "")]
    assert paragraphs(parsed)[1] == "id: 8\nbody: short"


def presentation() -> Any:
    deck = Presentation()
    deck.core_properties.title = "Pumps"
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text = "Start"
    frame = slide.placeholders[1].text_frame
    frame.text = "Open the inlet"
    deeper = frame.add_paragraph()
    deeper.text, deeper.level = "slowly", 1
    slide.notes_slide.notes_text_frame.text = "Mention the valve."
    second = deck.slides.add_slide(deck.slide_layouts[6])
    table = second.shapes.add_table(2, 2, 0, 0, Inches(4), Inches(1)).table
    for place, text in enumerate(("Part", "Net", "Bolt", "1.00")):
        table.cell(place // 2, place % 2).text = text
    second.shapes.add_textbox(0, Inches(3), Inches(2), Inches(1)).text_frame.text = "In a box."
    return deck


def saved(deck: Any) -> ParsedDocument:
    buffer = io.BytesIO()
    deck.save(buffer)
    return read("a.pptx", buffer.getvalue())


def test_a_slide_is_a_page_with_its_title_list_and_notes() -> None:
    parsed = saved(presentation())

    assert parsed.title == "Pumps"
    assert pages(parsed) == [(1, "Start"), (2, "| Part | Net |")]
    assert headings(parsed) == [(1, "Start"), (1, "")]
    assert items(parsed) == [(1, "", "Open the inlet"), (2, "", "slowly")]
    assert tables(parsed) == [(True, [["Part", "Net"], ["Bolt", "1.00"]])]
    assert paragraphs(parsed)[2:] == ["Speaker notes: Mention the valve.", "In a box."]


def test_hidden_slides_are_left_out_and_counted() -> None:
    deck = presentation()
    deck.slides[1].element.set("show", "0")

    parsed = saved(deck)

    assert "Bolt" not in parsed.text
    assert parsed.warnings == ["Hidden slides were left out: 1."]


ODF = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{full}:1.0"'
    for name, full in (
        *(("office", "office"), ("text", "text"), ("table", "table"), ("style", "style")),
        ("draw", "drawing"),
    )
)


def odt(body: str, styles: str = "") -> ParsedDocument:
    content = (
        f"<office:document-content {ODF}><office:automatic-styles>"
        '<text:list-style style:name="L1"><text:list-level-style-number text:level="1"'
        ' style:num-format="1" style:num-suffix="."/><text:list-level-style-bullet text:level="2"/>'
        f"</text:list-style></office:automatic-styles><office:body><office:text>{body}"
        "</office:text></office:body></office:document-content>"
    )
    return read("a.odt", archive({"content.xml": content, "styles.xml": styles}))


def test_odt_keeps_headings_lists_notes_and_boxes() -> None:
    parsed = odt(
        '<text:h text:outline-level="2">Start</text:h><text:p>To<text:s text:c="2"/>start:</text:p>'
        '<text:list text:style-name="L1"><text:list-item><text:p>Open.</text:p><text:list>'
        "<text:list-item><text:p>slowly</text:p></text:list-item></text:list></text:list-item>"
        "<text:list-item><text:p>Press.</text:p></text:list-item></text:list>"
        '<text:p>Tax<text:note text:note-class="footnote"><text:note-citation>1'
        "</text:note-citation><text:note-body><text:p>19 percent.</text:p></text:note-body>"
        "</text:note> applies.<draw:frame><draw:text-box><text:p>Boxed.</text:p></draw:text-box>"
        "</draw:frame></text:p>"
    )

    assert headings(parsed) == [(2, "Start")]
    assert items(parsed) == [(1, "1", "Open."), (2, "", "slowly"), (1, "2", "Press.")]
    assert paragraphs(parsed)[-3:] == ["Tax applies.", "Boxed.", "Note 1: 19 percent."]


def test_odt_tables_keep_merged_and_repeated_cells() -> None:
    def cell(text: str, more: str = "") -> str:
        return f"<table:table-cell {more}><text:p>{text}</text:p></table:table-cell>"

    spanning = cell("North", 'table:number-rows-spanned="2"')
    parsed = odt(
        f"<table:table><table:table-header-rows><table:table-row>{cell('Plant')}{cell('Line')}"
        "</table:table-row></table:table-header-rows>"
        f"<table:table-row>{spanning}{cell('A')}"
        f"</table:table-row><table:table-row><table:covered-table-cell/>{cell('B')}"
        "</table:table-row></table:table>"
    )

    assert tables(parsed) == [(True, [["Plant", "Line"], ["North", "A"], ["North", "B"]])]


def test_deleted_text_and_comments_of_odt_are_left_out() -> None:
    parsed = odt(
        "<text:tracked-changes><text:p>old</text:p></text:tracked-changes>"
        "<text:p>new<office:annotation><text:p>comment</text:p></office:annotation></text:p>"
    )

    assert parsed.text == "new"


def test_an_epub_is_read_in_its_order_without_its_contents() -> None:
    parts = {
        "META-INF/container.xml": '<container><rootfile full-path="o/b.opf"/></container>',
        "o/b.opf": (
            '<package xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:title>Pumps'
            "</dc:title><dc:creator>Ann Lee</dc:creator></metadata><manifest>"
            '<item id="n" href="n.xhtml" media-type="application/xhtml+xml" properties="nav"/>'
            '<item id="b" href="b%20c.xhtml" media-type="application/xhtml+xml"/>'
            '<item id="a" href="a.xhtml" media-type="application/xhtml+xml"/></manifest>'
            '<spine><itemref idref="n"/><itemref idref="a"/><itemref idref="b"/></spine></package>'
        ),
        "o/n.xhtml": "<p>Contents</p>",
        "o/a.xhtml": "<h1>One</h1><p>First.</p>",
        "o/b c.xhtml": "<h1>Two</h1><p>Second.</p>",
    }

    parsed = read("a.epub", archive(parts))

    assert (parsed.title, parsed.metadata) == ("Pumps", {"author": "Ann Lee"})
    assert parsed.text == "One\n\nFirst.\n\nTwo\n\nSecond."
    assert headings(parsed) == [(1, "One"), (1, "Two")]


def rtf(body: str) -> ParsedDocument:
    head = (
        r"{\rtf1\ansi\ansicpg1252\uc1{\fonttbl{\f0\fcharset0 Arial;}{\f1\fcharset204 Arial;}}"
        r"{\stylesheet{\s1 heading 1;}}{\info{\title Pumps}{\author Ann}}"
    )
    return read("a.rtf", (head + body + "}").encode("cp1252"))


def test_rtf_gives_text_in_the_encoding_of_its_fonts() -> None:
    parsed = rtf(
        r"{\f0 Gr\'f6\'dfe \u8364? 5}\par{\f1 \'c6\'e4\'e8}\par {\v hidden}{\*\x no}shown\par"
    )

    assert parsed.text == "Größe € 5\n\nЖди\n\nshown"
    assert (parsed.title, parsed.metadata) == ("Pumps", {"author": "Ann"})


def test_rtf_keeps_headings_lists_tables_and_notes() -> None:
    parsed = rtf(
        r"\pard\s1 Start\par\pard To start:\par"
        r"{\listtext 1.\tab}Open.\par{\listtext 2.\tab}Press.\par"
        r"\pard Tax{\footnote 19 percent.} applies.\par"
        r"\trowd\pard\intbl Part\cell Net\cell\row\trowd\pard\intbl Bolt\cell 1.00\cell\row"
        r"\pard End.{\header Procedure QP-7\par}\par"
    )

    assert headings(parsed)[0] == (1, "Start")
    assert items(parsed) == [(1, "1", "Open."), (1, "2", "Press.")]
    assert tables(parsed) == [(True, [["Part", "Net"], ["Bolt", "1.00"]])]
    assert paragraphs(parsed)[3:] == [
        "Tax applies.",
        "Note 1: 19 percent.",
        "End.",
        "Procedure QP-7",
    ]


def test_what_is_not_of_the_format_is_told() -> None:
    assert "not a spreadsheet" in refusal("a.xlsx", archive({"x": "y"}))
    assert "not a PowerPoint" in refusal("a.pptx", archive({"x": "y"}))
    assert "not an OpenDocument" in refusal("a.odt", b"PK nonsense")
    assert "not an EPUB" in refusal("a.epub", archive({"x": "y"}))
    assert "not an RTF" in refusal("a.rtf", b"hello")
    assert "save it as docx" in refusal("a.doc", b"\xd0\xcf\x11\xe0")


def test_source_styles_of_odt_are_code() -> None:
    parsed = odt(
        '<text:p text:style-name="Preformatted_20_Text">a = 1</text:p>'
        '<text:p text:style-name="Preformatted_20_Text">b = 2</text:p>',
        f'<s {ODF}><style:style style:name="Preformatted_20_Text"/></s>',
    )

    assert blocks(parsed, BlockKind.CODE) == ["a = 1\nb = 2"]
