"""The rules of chunking, over any text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan.blocks import BlockKind, column_names
from raglan.chunk_text import in_context
from raglan_ingester.chunking import Chunk, Sizes, chunk
from raglan_ingester.parsers.markdown_blocks import read_markdown
from raglan_ingester.parsers.parsed import Heading, ParsedDocument
from raglan_ingester.token_index import TokenIndex
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

WORDS = Tokenizer(WordLevel({"?": 0}, unk_token="?"))
WORDS.pre_tokenizer = Whitespace()
"""A token is a word or a run of punctuation."""


def cut(
    text: str, headings: list[Heading] | None = None, *, max_chars: int, overlap_chars: int = 0
) -> list[Chunk]:
    """The chunks of a text without blocks, measured in characters."""
    return chunk(ParsedDocument("", text, headings or []), Sizes(max_chars, overlap_chars))


def cut_markdown(text: str, *, max_tokens: int, title: str = "", language: str = "") -> list[Chunk]:
    """The chunks of a Markdown text, measured in words."""
    blocks, headings = read_markdown(text)
    document = ParsedDocument(title, text, headings, blocks)
    return chunk(document, Sizes(10_000, 0, max_tokens), TokenIndex(WORDS, text), language)


PIECES = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        ["\n\n", "\n", " ", ". ", "! ", "。", "e\u0301", "\u200d", "word ", "x" * 70, "\u2028"]
    ),
)
TEXTS = st.lists(PIECES, max_size=40).map("".join)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, list[Heading]]:
    text = draw(TEXTS)
    offsets = draw(st.sets(st.integers(0, max(0, len(text) - 1)), max_size=6)) if text else set()
    headings = [
        Heading(offset, draw(st.integers(1, 4)), draw(st.text(min_size=1, max_size=5)))
        for offset in sorted(offsets)
    ]
    return text, headings


@given(documents(), st.integers(8, 80), st.integers(0, 60))
def test_chunks_hold_all_that_is_not_blank_in_order_and_within_the_limit(
    document: tuple[str, list[Heading]], max_chars: int, overlap: int
) -> None:
    text, headings = document

    spans = cut(text, headings, max_chars=max_chars, overlap_chars=overlap)

    covered = set()
    for span in spans:
        assert 0 <= span.start < span.end <= len(text)
        assert span.end - span.start <= max_chars
        piece = text[span.start : span.end]
        assert piece.strip()
        covered.update(range(span.start, span.end))
    assert all(character.isspace() or at in covered for at, character in enumerate(text))
    assert [span.start for span in spans] == sorted({span.start for span in spans})
    assert [span.end for span in spans] == sorted({span.end for span in spans})


@given(documents(), st.integers(8, 80))
def test_without_overlap_no_character_is_in_two_chunks(
    document: tuple[str, list[Heading]], max_chars: int
) -> None:
    spans = cut(*document, max_chars=max_chars)

    assert all(one.end <= next_.start for one, next_ in pairwise(spans))


def test_a_heading_inside_a_quotation_cuts_no_block_in_two() -> None:
    text = "# Before\n\n> A note:\n>\n> # Inside\n>\n> Support ends.\n\n# After\n\nThe rest.\n"
    pieces = cut_markdown(text, max_tokens=100)
    spans = [(piece.start, piece.end) for piece in pieces]
    assert all(before[1] <= after[0] for before, after in pairwise(spans)), spans
    assert sum("Support ends." in text[start:end] for start, end in spans) == 1


def test_a_chunk_ends_at_the_end_of_a_sentence() -> None:
    text = "The first sentence is here. The second one follows it. And a third to end with."

    assert [text[s.start : s.end] for s in cut(text, max_chars=60)] == [
        "The first sentence is here.",
        "The second one follows it. And a third to end with.",
    ]


def test_a_long_paragraph_is_cut_in_about_equal_parts() -> None:
    text = "Eleven char " * 110  # 1,320 characters

    lengths = [span.end - span.start for span in cut(text, max_chars=1200)]

    assert len(lengths) == 2
    assert max(lengths) - min(lengths) <= 24


def test_sections_of_the_top_level_are_never_mixed() -> None:
    text = "# A\n\none\n\n# B\n\ntwo"
    headings = [Heading(0, 1, "A"), Heading(10, 1, "B")]

    assert cut(text, headings, max_chars=500) == [Chunk(0, 8, ("A",)), Chunk(10, 18, ("B",))]


def test_small_sections_share_a_chunk_under_their_common_heading() -> None:
    """Small sections below the top level share a chunk under what they have in common."""
    text = "# A\n\n## B\n\none\n\n## C\n\ntwo"
    headings = [Heading(0, 1, "A"), Heading(5, 2, "B"), Heading(16, 3, "C")]

    assert cut(text, headings, max_chars=500) == [Chunk(0, len(text), ("A", "B"))]


def test_a_chunk_carries_the_headings_above_it_outermost_first() -> None:
    text = "# A\n\nintro\n\n## B\n\n" + "A sentence of some length. " * 10
    headings = [Heading(0, 1, "A"), Heading(12, 2, "B")]

    spans = cut(text, headings, max_chars=150)

    assert spans[-1].heading_path == ("A", "B")


def test_a_heading_is_not_left_alone_at_the_end_of_a_chunk() -> None:
    body = "A sentence of some length. " * 3
    text = f"{body}\n\n## Next\n\n{body}"
    headings = [Heading(text.index("## Next"), 2, "Next")]

    assert any(
        text[span.start : span.end].startswith("## Next\n\nA sentence")
        for span in cut(text, headings, max_chars=100)
    )


def test_an_overlap_repeats_the_end_of_the_chunk_before() -> None:
    text = "One is here. Two is here. Three is here. Four is here. Five is here."

    spans = cut(text, max_chars=45, overlap_chars=16)

    assert all(one.end > next_.start for one, next_ in pairwise(spans))


def test_a_text_without_blanks_is_cut_between_letters_not_inside_one() -> None:
    text = "e\u0301" * 100

    assert all(text[span.start] == "e" for span in cut(text, max_chars=33))


def words_of(title: str, text: str, piece: Chunk) -> int:
    """Tokens that the model sees of a chunk."""
    seen = in_context(title, piece.heading_path, text[piece.start : piece.end])
    return len(WORDS.encode(seen, add_special_tokens=False).ids)


TABLE = "# Rates\n\n| Plan | Price |\n|---|---|\n" + "".join(
    f"| Plan {n} | {n} EUR |\n" for n in range(60)
)


def test_table_is_cut_between_rows_and_each_piece_knows_its_columns() -> None:
    pieces = cut_markdown(TABLE, max_tokens=60, title="Rates")

    assert len(pieces) > 3
    for piece in pieces:
        text = TABLE[piece.start : piece.end]
        (table,) = (block for block in piece.blocks if block.kind is BlockKind.TABLE)
        assert text.endswith("|")
        assert column_names(text, table) == ("Plan", "Price")
        assert "Price" in text or piece.heading_path[-1] == "Plan | Price"
        assert words_of("Rates", TABLE, piece) <= 60


def test_list_stays_with_its_lead_in_where_both_fit() -> None:
    text = (
        "Some words before it all.\n\nTo stop it:\n\n1. Open the lid.\n2. Press stop.\n\nAnd more."
    )

    pieces = [text[p.start : p.end] for p in cut_markdown(text, max_tokens=16)]

    assert "To stop it:\n\n1. Open the lid.\n2. Press stop." in pieces


def test_item_of_a_list_that_is_cut_keeps_its_lead_in() -> None:
    items = "\n".join(f"- step number {n} of the long list" for n in range(20))
    text = f"To stop it:\n\n{items}\n"

    pieces = cut_markdown(text, max_tokens=40)

    assert len(pieces) > 2
    assert all(piece.heading_path == ("To stop it:",) for piece in pieces[1:])


def test_code_stays_whole_with_its_fence_up_to_the_limit() -> None:
    prose = "A sentence with a few words in it. " * 6
    code = "```sh\nfirst --flag\n\nsecond --flag\n```"

    pieces = cut_markdown(f"{prose}\n\n{code}\n\n{prose}", max_tokens=40)

    text = f"{prose}\n\n{code}\n\n{prose}"
    assert sum(code in text[piece.start : piece.end] for piece in pieces) == 1


def test_code_beyond_the_limit_is_cut_between_lines_and_says_so() -> None:
    text = "```\n" + "".join(f"line number {n}\n" for n in range(40)) + "```\n"

    pieces = cut_markdown(text, max_tokens=30)

    assert all(text[piece.end : piece.end + 1] in ("\n", "") for piece in pieces)
    assert [block.cut_end for piece in pieces for block in piece.blocks][:-1] == [True] * (
        len(pieces) - 1
    )


def test_front_matter_and_comments_are_in_no_chunk() -> None:
    text = "<!-- internal -->\n\n# Intro\n\nThe pump is blue.\n"

    (piece,) = cut_markdown(text, max_tokens=50)

    assert text[piece.start : piece.end] == "# Intro\n\nThe pump is blue."


def test_sentences_end_by_the_rules_of_the_language() -> None:
    text = "Wir treffen uns am 31. März in der Halle. " * 4

    pieces = cut_markdown(text, max_tokens=14, language="de")

    assert {text[p.start : p.end] for p in pieces} == {"Wir treffen uns am 31. März in der Halle."}


@pytest.mark.parametrize("max_tokens", [24, 64, 200])
def test_no_chunk_is_longer_than_the_model_reads(max_tokens: int) -> None:
    text = f"{TABLE}\n\n{'Words in a row, with a comma. ' * 40}\n\n```\n{'x = y ' * 90}\n```\n"

    for piece in cut_markdown(text, max_tokens=max_tokens, title="A title"):
        assert words_of("A title", text, piece) <= max_tokens


def test_path_of_very_deep_headings_is_bounded() -> None:
    text = "\n\n".join(f"Heading {n}" for n in range(100)) + "\n\nText."
    headings = [Heading(text.index(f"Heading {n}"), n + 1, f"Heading {n}") for n in range(100)]

    pieces = cut(text, headings, max_chars=10_000)

    assert max(len(piece.heading_path) for piece in pieces) == 8
