"""Tools of the MCP server: their arguments, their results, and the same as text for a model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final

from fastapi import Request
from pydantic import BaseModel, Field
from raglan.errors import InvalidInput

from raglan_gateway.api import collections, documents, replies, schemas
from raglan_gateway.api.filters import BoundedFilter
from raglan_gateway.api.query import Answering
from raglan_gateway.api.strict import Strict
from raglan_gateway.api.text import NonBlankText
from raglan_gateway.mesh import Mesh

_PRIORITY: Final = "default"
Question = Annotated[NonBlankText, Field(min_length=1)]


class SearchInput(Strict):
    """Arguments of `search`."""

    query: Question
    """Question, or words to search for."""
    collections: schemas.SearchedCollections | None = None
    """Names of the collections to search; without them, the default one."""
    top_k: Annotated[int, Field(ge=1)] = 5
    """Passages to return."""
    filter: BoundedFilter | None = None
    """Only documents whose metadata match, such as {"eq": {"field": "team", "value": "search"}}."""


class AnswerInput(SearchInput):
    """Arguments of `answer`."""

    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """Tokens of the answer, at most."""


class ListInput(Strict):
    """Arguments of `list_collections`: none."""


class DocumentInput(Strict):
    """Arguments of `get_document`."""

    collection: schemas.CollectionName
    document_id: schemas.DocumentId
    """As in a passage or a citation."""
    start: Annotated[int, Field(ge=0)] = 0
    """First character of the text to return."""
    max_chars: Annotated[int, Field(ge=1, le=100_000)] = 20_000
    """Characters to return."""


class FoundPassage(schemas.Described):
    """A passage of a document: the document's text at `start:end`."""

    number: int
    collection: str
    document_id: str
    title: str
    heading_path: list[str]
    page: int | None
    text: str
    start: int
    end: int
    metadata: dict[str, Any]


class SearchOutput(schemas.Described):
    """Passages, best first."""

    passages: list[FoundPassage]
    collections: list[schemas.SearchedCollection]
    degraded: list[schemas.Degraded]
    trace_id: str


class AnswerOutput(schemas.Described):
    """An answer; `[n]` in it refers to the citation with that marker."""

    answer: str
    abstained: bool
    """True if the documents do not answer the question."""
    confidence: float
    """In [0, 1]."""
    citations: list[schemas.Citation]
    collections: list[schemas.SearchedCollection]
    degraded: list[schemas.Degraded]
    trace_id: str


class CollectionSummary(schemas.Described):
    """A collection and how much it holds."""

    name: str
    documents: int
    chunks: int


class ListOutput(schemas.Described):
    """The collections that may be searched."""

    collections: list[CollectionSummary]


class DocumentOutput(schemas.Described):
    """A part of a document's stored text."""

    collection: str
    document_id: str
    title: str
    metadata: dict[str, Any]
    language: str | None
    text: str
    start: int
    end: int
    total_chars: int
    next_start: int | None
    """`start` of the next part; null at the end."""


Result = tuple[BaseModel, str]
"""Structured, and as text."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool and what it does."""

    name: str
    title: str
    description: str
    input: type[Strict]
    output: type[BaseModel]
    run: Callable[[Any, Request], Awaitable[Result]]


def tools(answering: Answering, mesh: Mesh) -> dict[str, Tool]:
    """Every tool, by name."""
    all_of_them = (
        Tool(
            "search",
            "Search documents",
            "Find passages of the indexed documents, best first.",
            SearchInput,
            SearchOutput,
            partial(_search, answering),
        ),
        Tool(
            "answer",
            "Answer from documents",
            "Answer a question from the indexed documents, with citations whose quotes are "
            "verbatim.",
            AnswerInput,
            AnswerOutput,
            partial(_answer, answering),
        ),
        Tool(
            "list_collections",
            "List collections",
            "List the collections of documents that can be searched.",
            ListInput,
            ListOutput,
            partial(_list_collections, mesh),
        ),
        Tool(
            "get_document",
            "Read a document",
            "Read the stored text of a document, a part at a time.",
            DocumentInput,
            DocumentOutput,
            partial(_get_document, mesh),
        ),
    )
    return {tool.name: tool for tool in all_of_them}


async def _search(answering: Answering, given: SearchInput, request: Request) -> Result:
    body = schemas.SearchRequest(
        query=given.query,
        collections=given.collections,
        top_k=given.top_k,
        filter=given.filter,
    )
    found = await answering.search(body, request, _PRIORITY)
    reply = schemas.SearchReply.model_validate_json(found)
    passages = [_passage(number, each) for number, each in enumerate(reply.passages, 1)]
    made = SearchOutput(
        passages=passages,
        collections=reply.collections,
        degraded=reply.degraded,
        trace_id=reply.trace_id,
    )
    return made, "\n\n".join(map(_passage_text, passages)) or "No passage was found."


async def _answer(answering: Answering, given: AnswerInput, request: Request) -> Result:
    body = schemas.QueryRequest(
        query=given.query,
        collections=given.collections,
        top_k=given.top_k,
        filter=given.filter,
        max_tokens=given.max_tokens,
    )
    found = await answering.answer(body, request, _PRIORITY)
    reply = schemas.QueryReply.model_validate_json(found)
    made = AnswerOutput.model_validate(reply.model_dump(include=set(AnswerOutput.model_fields)))
    return made, _answer_text(made)


async def _list_collections(mesh: Mesh, _: ListInput, request: Request) -> Result:
    found = [
        CollectionSummary(name=each.name, documents=each.documents, chunks=each.chunks)
        for each in await collections.listed(mesh)
    ]
    lines = [f"{each.name}: {each.documents} documents" for each in found]
    return ListOutput(collections=found), "\n".join(lines) or "There is no collection."


async def _get_document(mesh: Mesh, given: DocumentInput, request: Request) -> Result:
    stored = replies.document(await documents.stored(mesh, given.collection, given.document_id), [])
    if given.start > len(stored.text):
        raise InvalidInput(f"start is {given.start}; the text ends at {len(stored.text)}.")
    text = stored.text[given.start : given.start + given.max_chars]
    end = given.start + len(text)
    made = DocumentOutput(
        collection=given.collection,
        document_id=stored.id,
        title=stored.title,
        metadata=stored.metadata,
        language=stored.language,
        text=text,
        start=given.start,
        end=end,
        total_chars=len(stored.text),
        next_start=end if end < len(stored.text) else None,
    )
    more = f"\n\n(The text goes on at start={end}.)" if made.next_start else ""
    return made, f"{stored.title} ({given.collection}/{stored.id})\n\n{text}{more}"


def _passage(number: int, found: schemas.Passage) -> FoundPassage:
    shared = found.model_dump(include=set(FoundPassage.model_fields))
    return FoundPassage.model_validate({"number": number, **shared})


def _passage_text(found: FoundPassage) -> str:
    return f"[{found.number}] {_place(found)}\n{found.text}"


def _answer_text(made: AnswerOutput) -> str:
    sources = [f'[{c.marker}] {_place(c)}: "{c.quote}"' for c in made.citations]
    return "\n".join([made.answer, *(["", "Sources:", *sources] if sources else [])])


def _place(source: FoundPassage | schemas.Citation) -> str:
    """The title and the headings, then what `get_document` takes."""
    names = " > ".join(dict.fromkeys([source.title, *source.heading_path]))
    page = f", page {source.page}" if source.page else ""
    return f"{names} ({source.collection}/{source.document_id}{page})"
