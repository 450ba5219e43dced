"""The rules of chunking, over any text."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from raglan_ingester.chunking import Span, chunk
from raglan_ingester.parsers.parsed import Heading

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

    spans = chunk(text, headings, max_chars=max_chars, overlap_chars=overlap)

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
    spans = chunk(*document, max_chars=max_chars)

    assert all(one.end <= next_.start for one, next_ in pairwise(spans))


def test_a_chunk_ends_at_the_end_of_a_sentence() -> None:
    text = "The first sentence is here. The second one follows it. And a third to end with."

    assert [text[s.start : s.end] for s in chunk(text, max_chars=60)] == [
        "The first sentence is here.",
        "The second one follows it. And a third to end with.",
    ]


def test_a_long_paragraph_is_cut_in_about_equal_parts() -> None:
    text = "Eleven char " * 110  # 1,320 characters

    lengths = [span.end - span.start for span in chunk(text, max_chars=1200)]

    assert len(lengths) == 2
    assert max(lengths) - min(lengths) <= 24


def test_sections_of_the_top_level_are_never_mixed() -> None:
    text = "# A\n\none\n\n# B\n\ntwo"
    headings = [Heading(0, 1, "A"), Heading(10, 1, "B")]

    assert chunk(text, headings, max_chars=500) == [Span(0, 8, ("A",)), Span(10, 18, ("B",))]


def test_small_sections_below_the_top_level_share_a_chunk_under_what_they_have_in_common() -> None:
    text = "# A\n\n## B\n\none\n\n## C\n\ntwo"
    headings = [Heading(0, 1, "A"), Heading(5, 2, "B"), Heading(16, 3, "C")]

    assert chunk(text, headings, max_chars=500) == [Span(0, len(text), ("A", "B"))]


def test_a_chunk_carries_the_headings_above_it_outermost_first() -> None:
    text = "# A\n\nintro\n\n## B\n\n" + "A sentence of some length. " * 10
    headings = [Heading(0, 1, "A"), Heading(12, 2, "B")]

    spans = chunk(text, headings, max_chars=150)

    assert spans[-1].heading_path == ("A", "B")


def test_a_heading_is_not_left_alone_at_the_end_of_a_chunk() -> None:
    body = "A sentence of some length. " * 3
    text = f"{body}\n\n## Next\n\n{body}"
    headings = [Heading(text.index("## Next"), 2, "Next")]

    assert any(
        text[span.start : span.end].startswith("## Next\n\nA sentence")
        for span in chunk(text, headings, max_chars=100)
    )


def test_an_overlap_repeats_the_end_of_the_chunk_before() -> None:
    text = "One is here. Two is here. Three is here. Four is here. Five is here."

    spans = chunk(text, max_chars=45, overlap_chars=16)

    assert all(one.end > next_.start for one, next_ in pairwise(spans))


def test_a_text_without_blanks_is_cut_between_letters_not_inside_one() -> None:
    text = "e\u0301" * 100

    assert all(text[span.start] == "e" for span in chunk(text, max_chars=33))
