"""Places where a chunk must begin: questions with their answers, rows of tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from raglan.blocks import Block, BlockKind

from raglan_ingester.parsers.parsed import Heading, ParsedDocument, name

_DEEPEST: Final = 9
"""Level of a question that is no heading: below every heading."""
_QUESTION_CHARS: Final = 300
_MARKUP: Final = re.compile(r"^[#>*_\s]+|(?<![*_#\s])[*_#\s]+$")
"""Around a question. A run of marks is looked through from its first one only."""
_LABEL: Final = re.compile(r"(?:Q|Question|F|Frage|Pregunta)\s?\d*\s?[:.)]\s*", re.IGNORECASE)
_ASKS: Final = ("?", "？", "؟", ";")  # noqa: RUF001
_GREEK: Final = re.compile("[\u0370-\u03ff]")
_NO_QUESTIONS: Final = "No questions were found: the document was cut by its structure."
_NO_TABLE: Final = "No tables or records were found: the document was cut by its structure."


@dataclass(frozen=True, slots=True)
class _Question:
    block: Block
    text: str
    answered: bool
    follows_heading: bool
    """True if it stands right below a heading that is no question."""


def at_questions(document: ParsedDocument) -> ParsedDocument:
    """Cut a document before each question, so that it stays with its answer."""
    questions = list(_questions(document))
    if not any(question.answered for question in questions):
        return replace(document, warnings=[*document.warnings, _NO_QUESTIONS])
    offsets = {heading.offset for heading in document.headings}
    headings = [
        *document.headings,
        *(
            Heading(each.block.start, _DEEPEST, name(each.text))
            for each in questions
            if each.block.start not in offsets and each.answered
        ),
    ]
    return replace(
        document,
        headings=sorted(headings, key=lambda heading: heading.offset),
        cuts=sorted(_cuts(document, questions)),
        warnings=[*document.warnings, *_about_unanswered(questions)],
    )


def at_rows(document: ParsedDocument, *, is_records: bool) -> ParsedDocument:
    """Cut a document before each row of its tables, or, where it `is_records`, each paragraph."""
    cuts = [cut for block in document.blocks for cut in _row_starts(document.text, block)]
    if not cuts and is_records:
        cuts = [each.start for each in document.blocks if each.kind is BlockKind.PARAGRAPH]
    if not cuts:
        return replace(document, warnings=[*document.warnings, _NO_TABLE])
    return replace(document, cuts=cuts)


def _questions(document: ParsedDocument) -> Iterator[_Question]:
    tops = [
        block
        for block in document.blocks
        if block.kind is not BlockKind.PAGE_BREAK and block.end > block.start
    ]
    asked = [_question_of(document.text, block) for block in tops]
    for at, (block, text) in enumerate(zip(tops, asked, strict=True)):
        if not text:
            continue
        has_own_answer = document.text[block.start : block.end].count("\n") > 0
        is_followed = at + 1 < len(tops) and not asked[at + 1] and not _is_heading(tops[at + 1])
        above = tops[at - 1] if at else None
        yield _Question(
            block,
            text,
            has_own_answer or is_followed,
            above is not None and _is_heading(above) and not asked[at - 1],
        )


def _question_of(text: str, block: Block) -> str:
    """The question that a heading or a paragraph is or begins with; empty if there is none."""
    if block.kind not in (BlockKind.HEADING, BlockKind.PARAGRAPH):
        return ""
    first, _, rest = text[block.start : block.end].partition("\n")
    line = _MARKUP.sub("", first)
    if match := _LABEL.match(line):
        return line[match.end() :].strip()
    asks = line.endswith(_ASKS) and (line[-1] != ";" or bool(_GREEK.search(line)))
    is_alone = not rest or block.kind is BlockKind.HEADING
    return line if asks and is_alone and len(line) <= _QUESTION_CHARS else ""


def _is_heading(block: Block) -> bool:
    return block.kind is BlockKind.HEADING


def _cuts(document: ParsedDocument, questions: Sequence[_Question]) -> set[int]:
    """Offsets of questions and headings; questions without answers share chunks."""
    cuts = {heading.offset for heading in document.headings}
    follows_bare = False
    for question in questions:
        start = question.block.start
        if question.follows_heading or (follows_bare and not question.answered):
            cuts.discard(start)
        else:
            cuts.add(start)
        follows_bare = not question.answered
    return cuts


def _about_unanswered(questions: Sequence[_Question]) -> list[str]:
    count = sum(not question.answered for question in questions)
    return [f"{count:,} questions have no answer below them."] if count else []


def _row_starts(text: str, block: Block) -> Iterator[int]:
    if block.kind is not BlockKind.TABLE:
        return
    yield block.start
    # The first row goes with the header.
    rows = [row for row in block.rows if row][2 if block.has_header else 1 :]
    for row in rows:
        yield max(block.start, text.rfind("\n", block.start, row[0].start) + 1)
