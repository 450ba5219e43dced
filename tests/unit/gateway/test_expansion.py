"""Joining passages with their neighbours: always the document's words, within the budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan.blocks import Block, BlockKind, from_bytes, to_bytes
from raglan.token_estimate import estimate_tokens
from raglan.v1 import common_pb2
from raglan_gateway.expansion.joining import joined, own_part, part_at
from raglan_gateway.expansion.planning import MAX_CHUNKS, REACH, choose, plan

Passage = common_pb2.Passage


@dataclass(frozen=True)
class Document:
    """A text and its chunks."""

    text: str
    chunks: list[Passage]


def cut(words: list[int], gaps: list[str], *, document: str = "d", **fields: Any) -> Document:
    """Make chunks of as many words, with a gap before each; "<" overlaps with the one before."""
    text, chunks = "", []
    for ordinal, (count, gap) in enumerate(zip(words, gaps, strict=True)):
        start = len(text)
        if ordinal and gap == "<":
            start, gap = max(chunks[-1].start + 1, start - 5), ""
        elif ordinal:
            text += gap
            start = len(text)
        text += " ".join(f"{document}{ordinal}w{n}" for n in range(count))
        structure = to_bytes([Block(BlockKind.PARAGRAPH, 0, len(text) - start)])
        chunks.append(
            Passage(
                chunk_id=f"{document}#v.{ordinal}", document_id=document, collection="c",
                ordinal=ordinal, text=text[start:], start=start, end=len(text),
                gap_before=gap if ordinal else "", structure=structure, **fields,
            )
        )  # fmt: skip
    return Document(text, chunks)


def expanded(hits: list[Passage], every: list[Passage], tokens: int) -> list[Passage]:
    wanted = plan(hits, neighbours=True)
    made = []
    for pieces in choose(hits, every, wanted, tokens=tokens, neighbours=True):
        chunks = [hits[each] if isinstance(each, int) else each for each in pieces]
        best = min(each for each in pieces if isinstance(each, int))
        made.append(joined(chunks, hits[best]))
    return made


@st.composite
def documents(draw: st.DrawFn) -> list[Document]:
    sizes = st.lists(st.integers(1, 8), min_size=1, max_size=12)
    made = []
    for name in "de"[: draw(st.integers(1, 2))]:
        words = draw(sizes)
        gaps = [draw(st.sampled_from(["\n\n", " ", "", "<", "\n---\n"])) for _ in words]
        made.append(cut(words, gaps, document=name))
    return made


@given(st.data(), documents(), st.integers(0, 200))
def test_texts_are_the_documents_own_and_within_the_budget(
    data: st.DataObject, made: list[Document], tokens: int
) -> None:
    every = [each for document in made for each in document.chunks]
    order = data.draw(st.permutations(range(len(every))))
    hits = [every[at] for at in order[: data.draw(st.integers(1, len(every)))]]
    found = [each for each in every if data.draw(st.booleans())]
    texts = {document.chunks[0].document_id: document.text for document in made}
    result = expanded(hits, found, tokens)
    held = [part.chunk_id for each in result for part in each.parts]
    assert len(held) == len(set(held))
    assert {each.chunk_id for each in hits} <= set(held)
    by_id = {each.chunk_id: each for each in every}
    added = sum(estimate_tokens(by_id[id_].text) for id_ in set(held) - {h.chunk_id for h in hits})
    assert added <= tokens
    places = [[hit.chunk_id for hit in hits].index(each.chunk_id) for each in result]
    assert places == sorted(places)
    for each in result:
        assert each.text == texts[each.document_id][each.start : each.end]
        ordinals = [by_id[part.chunk_id].ordinal for part in each.parts]
        assert ordinals == list(range(ordinals[0], ordinals[-1] + 1))
        for block in from_bytes(each.structure):
            assert 0 <= block.start <= block.end <= len(each.text)
        for part in each.parts:
            assert part_at(each, part.end - 1).start >= part.start


def test_neighbouring_hits_are_one_passage_in_the_documents_order() -> None:
    document = cut([3, 3, 3], ["", "\n\n", "\n\n"])
    hits = [document.chunks[1], document.chunks[0]]
    hits[0].matches.extend([0])
    hits[1].matches.extend([4])
    hits[0].scores.rerank = 0.9
    (whole,) = expanded(hits, [], 0)
    assert whole.text == document.text[: document.chunks[1].end]
    assert (whole.chunk_id, whole.scores.rerank) == ("d#v.1", 0.9)
    assert list(whole.matches) == [4, document.chunks[1].start]
    assert own_part(whole).start == document.chunks[1].start


def test_the_best_passage_is_expanded_first() -> None:
    one, two = cut([4] * 5, ["\n"] * 5), cut([4] * 5, ["\n"] * 5, document="e")
    tokens = estimate_tokens(one.chunks[0].text)
    first, second = expanded([one.chunks[2], two.chunks[2]], [*one.chunks, *two.chunks], tokens)
    assert [part.chunk_id for part in first.parts] == ["d#v.2", "d#v.3"]
    assert len(second.parts) == 1


def test_a_passage_reaches_no_further_than_its_neighbours() -> None:
    document = cut([2] * 9, ["\n"] * 9)
    (whole,) = expanded([document.chunks[4]], document.chunks, 10_000)
    assert len(whole.parts) == 2 * REACH + 1


def test_a_section_is_read_whole_and_no_further() -> None:
    section = common_pb2.ChunkRange(first=2, last=7)
    document = cut([2] * 9, ["\n"] * 9, section=section)
    for at in (0, 1, 8):
        document.chunks[at].ClearField("section")
    hits = [document.chunks[4]]
    (wanted,) = plan(hits, neighbours=False)
    (pieces,) = choose(hits, document.chunks, [wanted], tokens=10_000, neighbours=False)
    assert len(pieces) == 6


@pytest.mark.parametrize(
    ("field", "value"),
    [("gap_before", ""), ("chunk_id", "d#w.1"), ("heading_path", ["Another"])],
)
def test_what_is_not_known_to_follow_is_not_joined(field: str, value: Any) -> None:
    """The text between them is not known, another version, another heading."""
    document = cut([3, 3], ["", "\n\n"], heading_path=["One"])
    if field == "heading_path":
        del document.chunks[1].heading_path[:]
        document.chunks[1].heading_path.extend(value)
    else:
        setattr(document.chunks[1], field, value)
    assert len(expanded(document.chunks, [], 1_000)) == 2


def test_passages_without_sections_stay_as_they_are_unless_neighbours_are_asked_for() -> None:
    assert plan(cut([3, 3], ["", "\n"]).chunks, neighbours=False) == []


def test_chunks_that_are_read_are_bounded() -> None:
    document = cut([1] * 200, ["\n"] * 200)
    wanted = plan(document.chunks, neighbours=True)
    assert sum(each.last - each.first + 1 for each in wanted) <= MAX_CHUNKS
    assert [each.rank for each in wanted] == list(range(len(wanted)))


def test_a_paragraph_cut_in_two_is_one_block_again() -> None:
    document = cut([3, 3], ["", " "])
    first = Block(BlockKind.PARAGRAPH, 0, len(document.chunks[0].text), cut_end=True)
    second = Block(BlockKind.PARAGRAPH, 0, len(document.chunks[1].text), cut_start=True)
    document.chunks[0].structure = to_bytes([first])
    document.chunks[1].structure = to_bytes([second])
    (whole,) = expanded(document.chunks, [], 0)
    (block,) = from_bytes(whole.structure)
    assert (block.start, block.end, block.cut_end) == (0, len(whole.text), False)
