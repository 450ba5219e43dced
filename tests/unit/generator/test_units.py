"""Units of a text with structure, and their rendering."""

from __future__ import annotations

from dataclasses import replace

from raglan.blocks import Block, BlockKind, Cell, clip
from raglan_generator.generation import Passage
from raglan_generator.joining import stretches_of
from raglan_generator.sentences import Span
from raglan_generator.units import Kind, Unit, units_of

HEADING, PARAGRAPH, ITEM = BlockKind.HEADING, BlockKind.PARAGRAPH, BlockKind.LIST_ITEM
TABLE, CODE = BlockKind.TABLE, BlockKind.CODE

STEPS = """\
## Moving house

To move a colony:

1. Close the hive at dusk.
2. Strap it **firmly. Twice.**
3. Drive slowly."""

LIMITS = """\
Limits of the pump:

| name | default | |
|---|---|---|
| `max_bar` | 12 | see [limits](#limits) |
| <a id="x">flow</a> | | in litres. |"""

PRINTING = """\
Print it like this:

```sh
lp -d hall report.txt
```

Then wait."""


def block(kind: BlockKind, text: str, part: str, **more: object) -> Block:
    """A block that covers `part` of `text`."""
    start = text.index(part)
    return Block(kind, start, start + len(part), **more)  # type: ignore[arg-type]


def table(text: str) -> Block:
    """The table that `text` ends in, read from its bars."""
    start = text.index("|")
    rows, at = [], start
    for number, line in enumerate(text[start:].split("\n")):
        cells, cell_start = [], at + 1
        for cell in line.strip("|").split("|"):
            begin = cell_start + len(cell) - len(cell.lstrip())
            cells.append(
                Cell(
                    min(begin, cell_start + len(cell)), max(begin, cell_start + len(cell.rstrip()))
                )
            )
            cell_start += len(cell) + 1
        if number != 1:
            rows.append(tuple(cells))
        at += len(line) + 1
    return Block(TABLE, start, len(text), rows=tuple(rows), has_header=True)


STEP_BLOCKS = (
    block(HEADING, STEPS, "## Moving house", level=2),
    block(PARAGRAPH, STEPS, "To move a colony:"),
    *(
        block(ITEM, STEPS, line, level=1, label=line[0], lead_in="To move a colony:")
        for line in STEPS.split("\n")[4:]
    ),
)
PRINT_BLOCKS = (
    block(PARAGRAPH, PRINTING, "Print it like this:"),
    block(CODE, PRINTING, "```sh\nlp -d hall report.txt\n```", label="sh"),
    block(PARAGRAPH, PRINTING, "Then wait."),
)


def units(*passages: Passage, whole_lists: bool = False) -> list[Unit]:
    return [
        unit
        for stretch in stretches_of(passages)
        for unit in units_of(stretch, passages, whole_lists=whole_lists)
    ]


def test_an_item_has_its_lead_in_and_stands_under_its_headings() -> None:
    found = units(Passage(STEPS, headings=("Bees",), blocks=STEP_BLOCKS))
    assert [unit.text for unit in found] == [
        "1. Close the hive at dusk.",
        "2. Strap it **firmly. Twice.**",
        "3. Drive slowly.",
    ]
    assert {unit.lead_in for unit in found} == {"To move a colony:"}
    assert {unit.headings for unit in found} == {("Bees", "Moving house")}
    assert {unit.kind for unit in found} == {Kind.ITEM}


def test_a_whole_list_is_one_unit_where_lists_are_wanted() -> None:
    (found,) = units(Passage(STEPS, blocks=STEP_BLOCKS), whole_lists=True)
    assert found.kind is Kind.LIST
    assert found.lead_in == "To move a colony:"
    assert STEPS[slice(*found.span)] == STEPS[STEPS.index("To move a colony:") :]


def test_a_leading_heading_is_not_repeated_in_the_path() -> None:
    """A heading that the passage begins with is not repeated in the path."""
    found = units(Passage(STEPS, headings=("Bees", "Moving house"), blocks=STEP_BLOCKS))
    assert found[0].headings == ("Bees", "Moving house")


def test_a_row_reads_as_column_and_value_and_is_quoted_whole() -> None:
    blocks = (block(PARAGRAPH, LIMITS, "Limits of the pump:"), table(LIMITS))
    found = units(Passage(LIMITS, blocks=blocks))
    assert [unit.text for unit in found] == [
        "name: `max_bar`; default: 12; see limits",
        "name: flow; in litres.",
    ]
    assert [LIMITS[slice(*unit.span)] for unit in found] == LIMITS.split("\n")[4:]
    assert {unit.lead_in for unit in found} == {"Limits of the pump:"}


def test_rows_after_a_cut_keep_the_names_of_their_columns() -> None:
    start = LIMITS.index("| <a")
    (piece,) = clip(LIMITS, (table(LIMITS),), start, len(LIMITS))
    (found,) = units(Passage(LIMITS[start:], start, blocks=(piece,)))
    assert found.text == "name: flow; in litres."


def test_code_is_quoted_with_its_fence_and_the_sentence_before_it() -> None:
    code, wait = units(Passage(PRINTING, blocks=PRINT_BLOCKS))
    assert code.kind is Kind.CODE
    assert code.lead_in == "Print it like this:"
    assert code.text == "```sh\nlp -d hall report.txt\n```"
    assert PRINTING[slice(*code.span)] == PRINTING[: PRINTING.index("\n\nThen")]
    assert wait.text == "Then wait."


def pieces(cut: int) -> tuple[Passage, Passage]:
    """PRINTING as two passages of one document."""
    spans = (Span(0, cut), Span(cut, len(PRINTING)))
    first, second = (
        Passage(
            PRINTING[start:end],
            start,
            blocks=tuple(clip(PRINTING, PRINT_BLOCKS, start, end)),
            document="d",
        )
        for start, end in spans
    )
    return first, second


def test_code_cut_between_passages_is_joined_where_both_are_there() -> None:
    first, second = pieces(PRINTING.index("report"))
    code, wait = units(second, first)
    assert code.text == "```sh\nlp -d hall report.txt\n```"
    assert wait.text == "Then wait."


def test_half_a_block_of_code_is_not_quoted() -> None:
    first, second = pieces(PRINTING.index("report"))
    assert units(first) == []
    assert [unit.text for unit in units(second)] == ["Then wait."]


def test_pieces_of_two_documents_are_not_joined() -> None:
    first, second = pieces(PRINTING.index("report"))
    other = Passage(second.text, second.start, blocks=second.blocks, document="e")
    assert [unit.text for unit in units(first, other)] == ["Then wait."]


def test_a_bold_line_is_a_heading() -> None:
    text = "**How long do queens live?**\n\nUp to five years."
    blocks = (
        block(PARAGRAPH, text, "**How long do queens live?**"),
        block(PARAGRAPH, text, "Up to five years."),
    )
    (found,) = units(Passage(text, blocks=blocks))
    assert found.text == "Up to five years."
    assert found.headings == ("How long do queens live?",)


def test_a_long_item_is_quoted_by_its_sentences() -> None:
    text = "- " + "Bees dance. " * 100
    found = units(Passage(text, blocks=(Block(ITEM, 0, len(text), level=1),)))
    assert found[0].text == "Bees dance."
    assert len(found) == 100


def test_an_inner_list_is_introduced_by_the_item_around_it() -> None:
    text = "- Tools:\n  - a smoker\n  - a veil"
    blocks = (
        block(ITEM, text, text, level=1),
        block(ITEM, text, "- a smoker", level=2),
        block(ITEM, text, "- a veil", level=2),
    )
    found = units(Passage(text, blocks=blocks))
    assert [(unit.lead_in, unit.text) for unit in found] == [
        ("Tools:", "- a smoker"),
        ("Tools:", "- a veil"),
    ]


def test_sentences_are_split_in_the_language_of_the_document() -> None:
    text = "Der Imker kommt am 31. März nach Ulm. Danach nicht."
    blocks = (Block(PARAGRAPH, 0, len(text)),)
    found = units(Passage(text, blocks=blocks, language="de"))
    assert [unit.text for unit in found] == [
        "Der Imker kommt am 31. März nach Ulm.",
        "Danach nicht.",
    ]


def test_a_unit_knows_its_page() -> None:
    text = "One.\n\nTwo.\n\nThree."
    breaks = (Block(BlockKind.PAGE_BREAK, 6, 6, page=8),)
    blocks = sorted(
        (*(block(PARAGRAPH, text, part) for part in ("One.", "Two.", "Three.")), *breaks),
        key=lambda each: each.start,
    )
    found = units(Passage(text, blocks=tuple(blocks), page=7))
    assert [unit.page for unit in found] == [7, 8, 8]


def test_numbers_in_brackets_are_escaped_in_prose_and_left_alone_in_code() -> None:
    text = "It failed [12], then `x[1]`[^3]."
    (found,) = units(Passage(text, blocks=(Block(PARAGRAPH, 0, len(text)),)))
    assert found.text == r"It failed \[12\], then `x[1]`\[^3\]."
    (plain,) = units(Passage("The bridge opened.[2]"))
    assert plain.text == r"The bridge opened.\[2\]"


def piece(start: int, end: int, text: str, blocks: tuple[Block, ...]) -> Passage:
    return Passage(
        text[start:end], start, document="d", blocks=tuple(clip(text, blocks, start, end))
    )


def test_a_lead_in_is_not_quoted_with_its_code() -> None:
    """A sentence introduces the code of the next chunk and is not quoted with it."""
    fence = PRINTING.index("```sh")
    first = piece(0, fence - 2, PRINTING, PRINT_BLOCKS)
    second = piece(fence, len(PRINTING), PRINTING, PRINT_BLOCKS)
    (code,) = (unit for unit in units(second, first) if unit.kind is Kind.CODE)
    assert code.lead_in == "Print it like this:"
    assert PRINTING[slice(*code.span)].startswith("```sh")
    assert PRINTING[slice(*code.span)].endswith("```")


def test_a_list_that_a_line_break_cuts_is_whole_again() -> None:
    cut = STEPS.index("2. Strap")
    passages = [
        piece(0, cut - 1, STEPS, STEP_BLOCKS),
        piece(cut, len(STEPS), STEPS, STEP_BLOCKS),
    ]
    (found,) = units(*passages, whole_lists=True)
    assert found.kind is Kind.LIST
    assert STEPS[slice(*found.span)] == STEPS[STEPS.index("To move a colony:") :]


def test_no_list_is_quoted_over_white_space_that_is_not_known() -> None:
    text = STEPS.replace("\n2. Strap", "\n \n2. Strap")
    lines = [line for line in text.split("\n")[4:] if line.strip()]
    blocks = tuple(block(ITEM, text, line, level=1, label=line[0]) for line in lines)
    start, cut = text.index("1. Close"), text.index("2. Strap")
    passages = [piece(start, cut - 3, text, blocks), piece(cut, len(text), text, blocks)]
    assert [unit.kind for unit in units(*passages, whole_lists=True)] == [Kind.ITEM] * 3


def test_a_sentence_that_a_chunk_cuts_is_not_joined_over_a_gap() -> None:
    text = "The pump is rated for twelve bar at most."
    blocks = (block(PARAGRAPH, text, text),)
    cut = text.index("twelve")
    passages = [piece(0, cut - 1, text, blocks), piece(cut, len(text), text, blocks)]
    assert len(stretches_of(passages)) == 2


def test_each_joined_passage_has_the_headings_of_its_own() -> None:
    text = "## Bees\n\nThey fly.\n\n## Wasps\n\nThey sting."
    parts = [
        (HEADING, "## Bees"),
        (PARAGRAPH, "They fly."),
        (HEADING, "## Wasps"),
        (PARAGRAPH, "They sting."),
    ]
    blocks = tuple(
        block(kind, text, part, level=2 if kind is HEADING else 0) for kind, part in parts
    )
    cut = text.index("## Wasps")
    first = replace(piece(0, cut - 2, text, blocks), headings=("Insects", "Bees"))
    second = replace(piece(cut, len(text), text, blocks), headings=("Insects", "Wasps"))
    found = units(first, second)
    assert [unit.headings for unit in found] == [("Insects", "Bees"), ("Insects", "Wasps")]


def test_a_sentence_in_emphasis_ends_with_it() -> None:
    text = "Look first. *Call it inside a `ready` call.*"
    found = units(Passage(text, blocks=(block(PARAGRAPH, text, text),)))
    assert [unit.text for unit in found] == ["Look first.", "*Call it inside a `ready` call.*"]
