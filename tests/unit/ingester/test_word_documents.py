"""Word: what Word shows is stored, in its order."""

from __future__ import annotations

import io
from typing import Any

import pytest
from docx import Document
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls
from docx.shared import Pt
from parsed_documents import blocks, headings, items, paragraphs, read, tables
from raglan.blocks import BlockKind
from raglan_ingester.parsers.parsed import ParsedDocument

NAMESPACES = nsdecls("w") + (
    ' xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    ' xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape"'
    ' xmlns:v="urn:schemas-microsoft-com:vml"'
)


def saved(document: Any) -> ParsedDocument:
    buffer = io.BytesIO()
    document.save(buffer)
    return read("a.docx", buffer.getvalue())


def body(xml: str) -> ParsedDocument:
    """A document whose body holds this XML."""
    document = Document()
    wrapped = parse_xml(f"<w:body {NAMESPACES}>{xml}</w:body>")
    for element in reversed(wrapped):
        document.element.body.insert(0, element)
    return saved(document)


def run(text: str) -> str:
    return f'<w:r><w:t xml:space="preserve">{text}</w:t></w:r>'


@pytest.mark.parametrize(
    ("xml", "text"),
    [
        (f"{run('is ')}<w:ins w:id='1' w:author='a'>{run('650')}</w:ins>", "is 650"),
        (
            f"{run('is ')}<w:del w:id='1' w:author='a'><w:r><w:delText>6</w:delText></w:r></w:del>"
            f"{run('650')}",
            "is 650",
        ),
        (f"<w:sdt><w:sdtContent>{run('ZX-1')}</w:sdtContent></w:sdt>", "ZX-1"),
        (f"<w:fldSimple w:instr='REF a'>{run('field')}</w:fldSimple>", "field"),
        (
            '<w:r><w:fldChar w:fldCharType="begin"/><w:instrText>REF a</w:instrText></w:r>'
            f'<w:r><w:fldChar w:fldCharType="separate"/></w:r>{run("result")}',
            "result",
        ),
        (f"<w:smartTag>{run('tag')}</w:smartTag>", "tag"),
        (f"<w:hyperlink>{run('link')}</w:hyperlink>", "link"),
        ("<w:r><w:t>non</w:t><w:noBreakHyphen/><w:t>stop</w:t></w:r>", "non-stop"),
        (f"{run('a')}<w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden</w:t></w:r>", "a"),
        ("<w:r><w:t>a</w:t><w:tab/><w:t>b</w:t></w:r>", "a\tb"),
        (
            "<w:r><w:ruby><w:rt><w:r><w:t>かんじ</w:t></w:r></w:rt>"
            "<w:rubyBase><w:r><w:t>漢字</w:t></w:r></w:rubyBase></w:ruby></w:r>",
            "漢字(かんじ)",
        ),
    ],
)
def test_all_that_a_paragraph_shows_is_kept(xml: str, text: str) -> None:
    assert body(f"<w:p>{xml}</w:p>").text == text


def test_a_text_box_is_read_once() -> None:
    box = f"<w:txbxContent><w:p>{run('In the box.')}</w:p></w:txbxContent>"

    parsed = body(
        f"<w:p>{run('Before.')}<w:r><mc:AlternateContent>"
        f'<mc:Choice Requires="wps"><w:drawing><wps:txbx>{box}</wps:txbx></w:drawing></mc:Choice>'
        f"<mc:Fallback><w:pict><v:textbox>{box}</v:textbox></w:pict></mc:Fallback>"
        f"</mc:AlternateContent></w:r></w:p><w:p>{run('After.')}</w:p>"
    )

    assert paragraphs(parsed) == ["Before.", "In the box.", "After."]


def test_lists_have_their_numbers_depths_and_lead_in() -> None:
    document = Document()
    document.add_paragraph("To drain the tank:")
    document.add_paragraph("Close the inlet.", style="List Number")
    document.add_paragraph("Drain it.", style="List Number")
    document.add_paragraph("Once it is empty, stop.")
    document.add_paragraph("A bullet", style="List Bullet")

    parsed = saved(document)

    assert parsed.text == (
        "To drain the tank:\n\n1. Close the inlet.\n2. Drain it.\n\n"
        "Once it is empty, stop.\n\n- A bullet"
    )
    assert items(parsed) == [
        (1, "1", "Close the inlet."),
        (1, "2", "Drain it."),
        (1, "", "A bullet"),
    ]
    lead_ins = [b.lead_in for b in parsed.blocks if b.kind is BlockKind.LIST_ITEM]
    assert lead_ins == ["To drain the tank:", "To drain the tank:", ""]


def numbered(levels: list[tuple[str, str]], *paragraphs_: tuple[int, str]) -> ParsedDocument:
    """Paragraphs (level from 0, text) of one list whose levels have (format, text)."""
    document = Document()
    numbering = document.part.numbering_part.element
    shown = "".join(
        f'<w:lvl w:ilvl="{n}"><w:start w:val="1"/><w:numFmt w:val="{form}"/>'
        f'<w:lvlText w:val="{text}"/></w:lvl>'
        for n, (form, text) in enumerate(levels)
    )
    numbering.insert(
        0, parse_xml(f'<w:abstractNum {NAMESPACES} w:abstractNumId="90">{shown}</w:abstractNum>')
    )
    numbering.append(
        parse_xml(f'<w:num {NAMESPACES} w:numId="90"><w:abstractNumId w:val="90"/></w:num>')
    )
    for level, text in paragraphs_:
        paragraph = document.add_paragraph(text)
        paragraph._p.get_or_add_pPr().append(
            parse_xml(
                f'<w:numPr {NAMESPACES}><w:ilvl w:val="{level}"/><w:numId w:val="90"/></w:numPr>'
            )
        )
    return saved(document)


def test_numbers_of_deeper_levels_are_those_that_word_shows() -> None:
    parsed = numbered(
        [("decimal", "%1."), ("decimal", "%1.%2"), ("lowerRoman", "(%3)")],
        *((0, "Scope"), (1, "Pumps"), (1, "Valves"), (2, "Gate"), (2, "Ball"), (0, "Duties")),
        (1, "Owner"),
    )

    assert [label for _, label, _ in items(parsed)] == ["1", "1.1", "1.2", "i", "ii", "2", "2.1"]
    assert "   1.2 Valves\n       (i) Gate" in parsed.text


def test_headings_have_the_levels_of_their_styles_and_their_numbers() -> None:
    document = Document()
    document.add_heading("Scope", 1)
    document.add_heading("Duties", 2)

    assert headings(saved(document)) == [(1, "Scope"), (2, "Duties")]


def test_equal_and_empty_cells_keep_their_places() -> None:
    document = Document()
    table = document.add_table(3, 3)
    for row, values in zip(
        table.rows, (("Day", "Open", "Close"), ("Monday", "9", "9"), ("Sunday", "", "8")),
        strict=True,
    ):  # fmt: skip
        for cell, value in zip(row.cells, values, strict=True):
            cell.text = value

    parsed = saved(document)

    assert parsed.text == (
        "| Day | Open | Close |\n| --- | --- | --- |\n| Monday | 9 | 9 |\n| Sunday |  | 8 |"
    )
    assert tables(parsed) == [
        (True, [["Day", "Open", "Close"], ["Monday", "9", "9"], ["Sunday", "", "8"]])
    ]


def test_merged_cells_stand_in_each_row_that_they_cover() -> None:
    document = Document()
    table = document.add_table(3, 3)
    values = (("Plant", "Line", "Output"), ("North", "A", "10"), ("North", "B", "20"))
    for row, texts in zip(table.rows, values, strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text
    table.cell(2, 0).text = ""
    table.cell(1, 0).merge(table.cell(2, 0))

    assert tables(saved(document))[0][1][1:] == [["North", "A", "10"], ["North", "B", "20"]]


def test_a_table_inside_a_table_is_read() -> None:
    document = Document()
    outer = document.add_table(1, 2)
    outer.cell(0, 0).text = "Outer"
    inner = outer.cell(0, 1).add_table(1, 2)
    inner.cell(0, 0).text, inner.cell(0, 1).text = "inner left", "inner right"

    parsed = saved(document)

    assert "Outer" in parsed.text
    assert tables(parsed) == [(False, [["inner left", "inner right"]])]


def test_notes_stand_behind_the_paragraph_that_refers_to_them() -> None:
    document = Document()
    document.add_paragraph("Interest is charged.")._p.append(
        parse_xml(f'<w:r {NAMESPACES}><w:footnoteReference w:id="2"/></w:r>')
    )
    document.add_paragraph("Next.")
    from docx.opc.packuri import PackURI
    from docx.opc.part import Part

    notes = (
        f'<w:footnotes {NAMESPACES}><w:footnote w:type="separator" w:id="0"><w:p/></w:footnote>'
        f'<w:footnote w:id="2"><w:p>{run("Nine percent.")}</w:p></w:footnote></w:footnotes>'
    )
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes"
    part = Part(PackURI("/word/footnotes.xml"), "application/xml", notes.encode(), None)  # type: ignore[arg-type]
    document.part.relate_to(part, kind)

    assert paragraphs(saved(document)) == [
        "Interest is charged.",
        "Note 1: Nine percent.",
        "Next.",
    ]


def test_page_headers_and_footers_are_kept_once_without_page_numbers() -> None:
    document = Document()
    document.add_heading("Pumps", 1)
    document.add_paragraph("Body.")
    document.sections[0].header.paragraphs[0].text = "Procedure QP-7"
    document.sections[0].footer.paragraphs[0].text = "Page 1 of 9"
    document.add_section().header.is_linked_to_previous = False
    document.sections[1].header.paragraphs[0].text = "Procedure QP-7"

    parsed = saved(document)

    assert paragraphs(parsed) == ["Body.", "Procedure QP-7"]
    assert headings(parsed) == [(1, "Pumps"), (1, "")]


def test_code_and_quotations_are_known_by_their_styles() -> None:
    document = Document()
    document.styles.add_style("Source Code", 1).font.size = Pt(9)
    document.add_paragraph("def f():", style="Source Code")
    document.add_paragraph("    return 1", style="Source Code")
    document.add_paragraph("As she said.", style="Quote")

    parsed = saved(document)

    assert blocks(parsed, BlockKind.CODE) == ["def f():\n    return 1"]
    assert blocks(parsed, BlockKind.QUOTATION) == ["As she said."]
