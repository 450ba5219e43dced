"""Questions with their answers, and rows of tables, as chunks of their own."""

from __future__ import annotations

import pytest
from raglan_ingester import parsers
from raglan_ingester.chunking import Chunk, Sizes, chunk
from raglan_ingester.parsers.parsed import Source


def cut(text: str, name: str, strategy: str, max_chars: int = 1200) -> tuple[list[Chunk], str]:
    parsed = parsers.parse(Source(text.encode(), name, ""), strategy)
    return chunk(parsed, Sizes(max_chars), strategy=strategy), " ".join(parsed.warnings)


def texts(text: str, name: str, strategy: str = "qa") -> list[str]:
    parsed = parsers.parse(Source(text.encode(), name, ""), strategy)
    pieces = chunk(parsed, Sizes(1200), strategy=strategy)
    return [parsed.text[each.start : each.end] for each in pieces]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.md", "# FAQ\n\n## Who signs?\n\nManager.\n\nTwice.\n\n## When?\n\n- Weekly.\n- No.\n"),
        ("b.md", "# FAQ\n\n**Who signs?**\n\nThe manager.\n\nTwice.\n\n**When?**\n\nWeekly.\n"),
        ("c.txt", "Q: Who signs?\nA: The manager.\n\nTwice.\n\nQ: When?\nA: Weekly.\n"),
        ("d.csv", "question,answer\nWho signs?,The manager. Twice.\nWhen?,Weekly.\n"),
        ("e.jsonl", '{"question": "Who signs?", "answer": "Manager. Twice."}\n'
                    '{"question": "When?", "answer": "Weekly."}\n'),
    ],
)  # fmt: skip
def test_a_question_stays_with_its_answer(name: str, text: str) -> None:
    pieces = texts(text, name)
    assert len(pieces) == 2
    assert "Who signs?" in pieces[0]
    assert "Twice." in pieces[0]
    assert "When?" in pieces[1]
    assert "Weekly." in pieces[1]


def test_a_long_answer_is_told_with_its_question() -> None:
    answer = "\n\n".join(f"Paragraph {n} of the answer." for n in range(30))
    pieces, _ = cut(f"**Why so long?**\n\n{answer}\n\n**And now?**\n\nDone.\n", "a.md", "qa", 200)
    assert len(pieces) > 3
    assert {piece.heading_path for piece in pieces[:-1]} == {("Why so long?",)}
    assert pieces[-1].heading_path == ("And now?",)


def test_questions_without_answers_share_a_chunk_and_a_warning() -> None:
    text = "**Who?**\n\n**When?**\n\n**Where?**\n\nHere.\n"
    pieces, warning = cut(text, "a.md", "qa")
    assert [text[p.start : p.end] for p in pieces] == [
        "**Who?**\n\n**When?**",
        "**Where?**\n\nHere.",
    ]
    assert warning == "2 questions have no answer below them."


def test_an_faq_without_any_answer_is_cut_by_structure() -> None:
    pieces, warning = cut("Who?\n\nWhen?\n\nWhere?\n", "a.txt", "qa")
    assert len(pieces) == 1
    assert warning == "No questions were found: the document was cut by its structure."


TABLE = "# Limits\n\nSome prose.\n\n| name | limit |\n|---|---|\n| a | 1 |\n| b | 2 |\n| c | 3 |\n"


def test_a_row_is_a_chunk_with_its_columns() -> None:
    pieces, _ = cut(TABLE, "a.md", "table")
    found = [(TABLE[p.start : p.end], p.heading_path) for p in pieces]
    assert found[0][0] == "# Limits\n\nSome prose."
    assert "| a | 1 |" in found[1][0]
    assert found[2:] == [
        ("| b | 2 |", ("Limits", "name | limit")),
        ("| c | 3 |", ("Limits", "name | limit")),
    ]


def test_a_record_is_a_chunk() -> None:
    text = "name,limit\n" + "".join(f"row {n},{n}\n" for n in range(9))
    assert texts(text, "a.csv", "table") == [f"name: row {n}\nlimit: {n}" for n in range(9)]


def test_a_file_of_one_column_is_a_chunk_a_row() -> None:
    assert len(texts("name\nanna\nberta\nclara\n", "a.csv", "table")) == 3


def test_a_document_without_tables_is_cut_by_structure_with_a_warning() -> None:
    pieces, warning = cut("One.\n\nTwo.\n", "a.txt", "table")
    assert len(pieces) == 1
    assert warning == "No tables or records were found: the document was cut by its structure."
