"""Joining passages with their neighbours: always the document's words, within the budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan.blocks import Block, BlockKind, from_bytes, to_bytes
from raglan.deadline import Deadline
from raglan.errors import Conflict, NotSupported, RaglanError, Unavailable
from raglan.token_estimate import estimate_tokens
from raglan.v1 import common_pb2, retriever_pb2
from raglan_gateway.expansion.expanding import expand
from raglan_gateway.expansion.joining import joined, own_part, part_at
from raglan_gateway.expansion.planning import MAX_CHUNKS, REACH, choose, plan
from raglan_gateway.query import Query
from raglan_gateway.query_state import QueryState
from raglan_gateway.quoting import quote_passages
from raglan_gateway.stage import StageLimiter

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


@dataclass
class FakeIndex:
    """An index that holds one document, or fails."""

    chunks: list[Passage]
    error: RaglanError | None = None
    asked: list[retriever_pb2.GetNeighboursRequest] = field(default_factory=list)

    async def neighbours(
        self, request: retriever_pb2.GetNeighboursRequest, *, deadline: Deadline
    ) -> retriever_pb2.GetNeighboursResponse:
        self.asked.append(request)
        if self.error:
            raise self.error
        return retriever_pb2.GetNeighboursResponse(chunks=self.chunks)


async def run_stage_with(index: FakeIndex, hits: list[Passage], **asked: Any) -> QueryState:
    query = Query(
        text="?", collections=("c",), top_k=3, mode=retriever_pb2.SEARCH_MODE_HYBRID, rerank=True,
        filter=FILTER, **asked,
    )  # fmt: skip
    run = QueryState(query, Deadline.after(5))
    run.passages = list(hits)
    await expand(run, index, StageLimiter("expand", longest_s=1, share=0.5))
    return run


FILTER = retriever_pb2.Filter(condition=retriever_pb2.Condition(field="a", exists=True))


async def test_the_index_is_asked_once_with_the_filter_of_the_search() -> None:
    document = cut([3] * 6, ["\n"] * 6)
    index = FakeIndex(document.chunks)
    hits = [document.chunks[1], document.chunks[4]]
    run = await run_stage_with(index, hits, expand_tokens=1_000, expand_neighbours=True)
    (request,) = index.asked
    assert list(request.collections) == ["c"]
    assert request.filter == FILTER
    assert [(each.wanted.first, each.wanted.last) for each in request.around] == [(0, 3), (2, 6)]
    assert [each.text for each in run.passages] == [document.text]
    assert (run.passages[0].rank, run.degraded) == (1, [])
    assert "expand" in run.timings_ms


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("down"),
        NotSupported("an older retriever"),
        Conflict("a damaged collection"),
    ],
)
async def test_passages_stay_as_they_are_where_neighbours_cannot_be_read(
    error: RaglanError,
) -> None:
    document = cut([3] * 3, ["\n"] * 3)
    hits = [document.chunks[0], document.chunks[1]]
    index = FakeIndex([], error)
    run = await run_stage_with(index, hits, expand_tokens=1_000, expand_neighbours=True)
    assert run.passages == hits
    (note,) = run.degraded
    assert (note.stage, note.fallback) == ("expand", "plain_passages")


async def test_a_neighbour_that_is_gone_is_no_failure() -> None:
    document = cut([3] * 3, ["\n"] * 3)
    index = FakeIndex([])
    run = await run_stage_with(
        index, document.chunks[1:2], expand_tokens=1_000, expand_neighbours=True
    )
    assert [each.chunk_id for each in run.passages] == ["d#v.1"]
    assert run.degraded == []


@pytest.mark.parametrize(
    "asked", [{}, {"expand_tokens": 0, "expand_neighbours": True}, {"expand_tokens": 2_000}]
)
async def test_without_tokens_or_sections_nothing_is_asked(asked: dict[str, Any]) -> None:
    document = cut([3] * 3, ["\n"] * 3)
    index = FakeIndex(document.chunks)
    run = await run_stage_with(index, document.chunks, **asked)
    assert index.asked == []
    assert "expand" not in run.timings_ms
    assert run.passages == document.chunks


def test_an_answer_without_a_generator_quotes_the_passage_that_was_found() -> None:
    document = cut([3] * 3, ["\n"] * 3)
    (whole,) = expanded([document.chunks[1]], document.chunks, 1_000)
    citation = next(e.citation for e in quote_passages([whole]) if e.HasField("citation"))
    assert citation.start == document.chunks[1].start
    assert document.text[citation.start : citation.end] == citation.quote
