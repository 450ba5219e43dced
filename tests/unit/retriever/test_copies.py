"""The copy of a text that a search shows."""

from __future__ import annotations

from raglan_retriever.chunks import Chunk
from raglan_retriever.searching import SearchHit, _preferred


def found(document_id: str, text: str = "the same") -> SearchHit:
    chunk = Chunk(
        chunk_id=f"{document_id}#{text}",
        document_id=document_id,
        ordinal=0,
        title="",
        text=text,
        start=0,
        end=len(text),
        heading_path=(),
        metadata_json="{}",
    )
    return SearchHit(chunk, "c", dense=0.5, lexical=None, fused=None)


def test_copy_of_a_document_without_a_place_is_shown() -> None:
    first, copy = found("a"), found("b")
    assert _preferred(first, copy, [found("a", "another"), first]) is copy


def test_copy_of_the_document_shown_lower_is_shown_where_both_have_a_place() -> None:
    first, copy = found("a"), found("b")
    shown = [found("a", "one"), found("b", "two"), first]
    assert _preferred(first, copy, shown) is copy
    assert _preferred(copy, first, shown) is copy


def test_the_better_hit_stays_where_nothing_else_tells() -> None:
    first, copy = found("a"), found("b")
    assert _preferred(first, copy, [first]) is first
