"""Request and reply bodies of the REST API. The OpenAPI document is made from these classes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from raglan import access_tags
from raglan.chunking_strategy import ChunkingStrategy
from raglan.errors import InvalidInput
from raglan.identifiers import COLLECTION_NAME, MAX_DOCUMENT_ID_CHARS, check_document_id

from raglan_gateway.api.cacheable import CacheableAnswer
from raglan_gateway.api.filters import BoundedFilter
from raglan_gateway.api.preference_schemas import WithPreferences
from raglan_gateway.api.searched import Degraded as Degraded
from raglan_gateway.api.searched import SearchedCollection as SearchedCollection
from raglan_gateway.api.strategy_schemas import StrategyReply, WithSecondTry, WithStrategy
from raglan_gateway.api.strict import Strict
from raglan_gateway.api.text import BoundedJson, NonBlankText, PlainText
from raglan_gateway.api.understood import Understood
from raglan_gateway.api.version_schemas import KeptVersions, Moment
from raglan_gateway.injection_signs import InjectionSign


class Described(BaseModel):
    """An object whose fields have their docstrings as descriptions in the OpenAPI document."""

    model_config = ConfigDict(use_attribute_docstrings=True)


CollectionName = Annotated[str, Field(pattern=COLLECTION_NAME, examples=["default"], max_length=64)]
StoredId = Annotated[
    PlainText, Field(min_length=1, max_length=MAX_DOCUMENT_ID_CHARS, examples=["guide.md"])
]
"""Id of a stored document: an earlier version accepted ids that are refused now."""


def _check_id(value: str) -> str:
    try:
        return check_document_id(value)
    except InvalidInput as error:
        raise ValueError(error.message.removesuffix(".")) from None


DocumentId = Annotated[StoredId, AfterValidator(_check_id)]
"""The id of a new document, or one in a path."""


SearchedCollections = Annotated[
    list[CollectionName], Field(min_length=1, max_length=16, fail_fast=True)
]


TextFormat = Literal[
    "text/plain", "text/markdown", "text/html", "text/x-rst", "text/asciidoc", "text/org",
    "text/csv", "application/json", "application/jsonl",
]  # fmt: skip

AccessTags = Annotated[
    list[Annotated[str, Field(pattern=access_tags.TAG, max_length=64, examples=["hr"])]],
    Field(max_length=access_tags.MAX_TAGS, fail_fast=True),
]


class SearchRequest(WithPreferences, WithStrategy):
    """A search request."""

    query: Annotated[NonBlankText, Field(min_length=1, examples=["How do I pin the reranker?"])]
    """The question, or words to search for."""
    collections: SearchedCollections | None = None
    """Names of the collections to search; without them, `RAGLAN_GATEWAY_DEFAULT_COLLECTION`."""
    profile: Annotated[PlainText, Field(max_length=64, examples=["balanced"])] | None = None
    """Named settings: `fast`, `balanced`, `thorough`, or one of `RAGLAN_GATEWAY_PROFILES_FILE`.
    Fields of the request are kept. Without it, the profile of the collection, if it has one."""
    top_k: Annotated[int, Field(ge=1)] = 10
    """Passages to return, at most `RAGLAN_GATEWAY_MAX_TOP_K` (100)."""
    mode: Literal["hybrid", "dense", "lexical"] = "hybrid"
    """Search by vectors (dense), by words (lexical), or by both."""
    rerank: bool = True
    """Order the passages by the reranker."""
    min_score: Annotated[float, Field(ge=0, le=1)] | None = None
    """Least `scores.rerank` of a passage: others, and those that were not scored, are left out.
    Not applied where nothing was reranked; `degraded` says so then."""
    filter: BoundedFilter | None = None
    """Only documents whose metadata match."""
    as_of: Moment | None = None
    """Search the versions of documents that were present at this time; without it, the present
    ones. Refused for collections that keep no versions."""
    expand_tokens: Annotated[int, Field(ge=0)] | None = None
    """Tokens of text around the passages that they are joined with, best first, in all; passages
    that follow each other are joined too. At most `RAGLAN_GATEWAY_MAX_EXPAND_TOKENS` (16,000); 0
    for none. Without it, `RAGLAN_GATEWAY_SECTION_TOKENS` (2,000), for chunks of the strategy
    `parent` alone."""
    timeout_ms: Annotated[int, Field(ge=100)] | None = None
    """Deadline in milliseconds from the arrival; without it,
    `RAGLAN_GATEWAY_DEFAULT_TIMEOUT_MS` (30,000)."""


class Turn(Strict):
    """A turn of a conversation."""

    role: Literal["user", "assistant"]
    text: NonBlankText


class QueryRequest(WithSecondTry, SearchRequest):
    """A question, and how to answer it."""

    history: Annotated[list[Turn], Field(max_length=1_000, fail_fast=True)] = Field(
        default_factory=list
    )
    """Turns of the conversation before the question, oldest first, at most
    `RAGLAN_GATEWAY_MAX_HISTORY_TURNS` (100). The question may refer to them: see
    `standalone_question` in the reply."""
    session_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    """Session of the caller that the question belongs to, instead of `history`; a new id begins
    one."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Annotated[list[PlainText], Field(max_length=4, fail_fast=True)] = Field(
        default_factory=list
    )
    """Texts before which the answer ends."""
    json_schema: BoundedJson | None = None
    """JSON Schema of the answer; it is a JSON document then, without citations."""
    stream: bool = False
    """Answer by server-sent events while the answer is generated."""
    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """Tokens of the answer, at most; without it, `RAGLAN_GENERATOR_MAX_TOKENS`."""


class Scores(Described):
    """Scores of a passage by stage; null for a stage that did not run."""

    dense: float | None = None
    lexical: float | None = None
    fused: float | None = None
    rerank: float | None = None
    """Relevance of the passage, in [0, 1], whatever stands beside it; the order also counts what
    the search thought of it. Null where the passage was not scored, or the reranking model does not
    read its language."""


class Passage(Described):
    """A piece of a stored document: `text` equals the document's text at `start:end`."""

    chunk_id: str
    """The chunk that was found."""
    chunk_ids: list[str]
    """The chunks that the text consists of, in the order of the document."""
    document_id: str
    collection: str
    title: str
    heading_path: list[str]
    """Headings above the chunk, outermost first. A chunk that begins inside a table or a list has
    the names of the table's columns, or the sentence that leads in to the list, as the last."""
    page: int | None
    """The page on which it begins; null where the format has no pages."""
    text: str
    start: int
    end: int
    language: str | None
    """ISO 639-1 code of the document's language; null where it is unknown."""
    rank: int
    duplicates: int
    """Further passages with the same text that were left out of the result."""
    injection_signs: list[InjectionSign]
    """Signs that the text gives orders to a language model: `override` of instructions, `control`
    tokens and role names, `hidden` characters, words to the `model`, `encoded` orders. Most such
    text has one; none is no proof."""
    scores: Scores
    metadata: dict[str, Any]
    version: int | None = None
    """Number of the document's version that it is of; null where the collection keeps none."""


class Citation(Described):
    """`quote` equals the stored text of the document at `start:end`, in characters."""

    marker: int
    document_id: str
    collection: str
    chunk_id: str
    chunk_start: int
    chunk_end: int
    """The chunk that the quote was found in is the document's text at `chunk_start:chunk_end`."""
    title: str
    heading_path: list[str]
    """Headings above the quote, outermost first."""
    page: int | None
    """The page on which the quote begins; null where the format has no pages."""
    quote: str
    start: int
    end: int


class Usage(Described):
    """Tokens of the language model."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    """Of the prompt, served from the model's prefix cache."""


class ClaimSupport(Described):
    """Both in [0, 1]; `cosine` is null where the words alone decided."""

    lexical: float
    cosine: float | None
    conflict: Literal["number", "name", "negation"] | None = None
    """The part of the sentence that the passages contradict; the sentence is not supported then."""


class Claim(Described):
    """A sentence of the answer, `answer[start:end]`, and whether what it cites supports it."""

    start: int
    end: int
    markers: list[int]
    supported: bool
    support: ClaimSupport


class SearchReply(StrategyReply):
    """Passages, best first."""

    passages: list[Passage]


class QueryReply(CacheableAnswer, StrategyReply, Understood):
    """An answer with its sources."""

    id: str
    standalone_question: str = ""
    """The question as it was searched with: cleaned, and complete without `history`."""
    answer: str
    finish_reason: Literal["stop", "length", "abstained", "content_filter"] = "stop"
    """Finish reason: complete, cut at `max_tokens`, not answered by the documents, or withheld by
    the model's server."""
    abstained: bool = False
    """True if the documents do not answer the question."""
    thinking: str = ""
    """Reasoning of the model, no part of the answer; empty in a stream, which has shown it."""
    citations: list[Citation]
    passages: list[Passage]
    confidence: float
    """In [0, 1]: whether the passages answer the question."""
    confidence_parts: dict[str, float]
    """Components of `confidence`."""
    groundedness: float
    """In [0, 1]: the share of the answer's sentences that their citations support."""
    claims: list[Claim]
    """The sentences of an answer that a model wrote; a quote needs no proof."""
    unread_chunk_ids: list[str]
    """Passages that did not fit the model's context."""
    usage: Usage
    model: str


class StreamStart(Described):
    """The data of a stream's `start` event."""

    id: str
    standalone_question: str = ""
    """The question as it is searched with."""
    trace_id: str


class StreamSources(Described):
    """The data of a stream's `sources` event."""

    passages: list[Passage]
    degraded: list[Degraded]
    collections: list[SearchedCollection] = Field(default_factory=list)
    """As in the reply of `/v1/search`."""


class StreamThinking(Described):
    """The data of a stream's `thinking` event: reasoning, which is no part of the answer."""

    text: str


class StreamDelta(Described):
    """The data of a stream's `delta` event. A `restart` event makes those before it void."""

    text: str


class Chunking(Strict):
    """Cutting of documents, sizes in characters.

    A chunk is never longer than the embedding model reads, but for an entry of a log.
    """

    strategy: Annotated[ChunkingStrategy, Field(strict=False)] = ChunkingStrategy.STRUCTURE

    max_chars: Annotated[int, Field(ge=100, le=20_000)] = 1_200
    overlap_chars: Annotated[int, Field(ge=0, le=10_000)] = 0
    contextual: bool = False
    """A language model writes a sentence for each chunk that situates it in its document, which is
    embedded with it. Needs one."""


class FurtherVectors(Strict):
    """Vectors of each chunk besides the dense one and its words. They cannot be changed later."""

    late_interaction: bool = False
    """Keep a vector for each token, by which the index scores what the dense vector finds again."""
    token_pooling: Annotated[int, Field(ge=1, le=16)] = 1
    """Tokens in a row that share one vector, the mean of theirs."""
    sparse: bool = False
    """Keep term weights by the embedding model, searched beside the words."""


class NewCollection(Strict):
    """A collection to make. `embedder`, if given, must be the model that the mesh serves."""

    name: CollectionName
    embedder: Annotated[PlainText, Field(min_length=1, max_length=512)] | None = None
    chunking: Chunking | None = None
    versions: KeptVersions | None = None
    """Keep earlier versions of documents, for searches `as_of` a time; null removes a version when
    it is replaced."""
    vectors: FurtherVectors | None = None


class CollectionChanges(Strict):
    """Changes of a collection; fields that are left out stay as they are."""

    profile: Annotated[PlainText, Field(max_length=64, examples=["fast"])] | None = None
    """Profile of the questions to it that name none; null for that of the gateway's file."""

    recall_target: Annotated[float, Field(ge=0.8, le=0.999, examples=[0.99])] | None = None
    """Recall@10 that its vector index is built and searched for; null for the retriever's own.
    Where it takes another index, that is built in the background, from what is stored."""

    @model_validator(mode="after")
    def _check_given(self) -> CollectionChanges:
        if not self.model_fields_set:
            raise ValueError("Send profile, recall_target or both.")
        return self


class Embedder(Described):
    """The model that made a collection's vectors."""

    id: str
    revision: str
    dimension: int


class VectorIndex(Described):
    """The index of a collection's dense vectors; its parameters follow the collection's size."""

    state: Literal["scanned", "building", "ready"]
    """`scanned`: there is none yet, and a search compares the question with every chunk;
    `building`: one is being built, while the present one answers."""
    chunks: int
    """Chunks in it; the others are compared with the question one by one."""
    recall_target: float
    """Recall@10 against an exact search that its parameters are chosen for."""
    m: int
    """Edges a node of the graph; this and what follows are 0 or empty where there is no index."""
    ef_construct: int
    """Candidates for the edges of a new node."""
    ef: int
    """Candidates of a search, at least."""
    quantization: str
    """Form of the vectors that a search reads first: `none`, `int8` or `turbo4`."""
    oversampling: float
    """How many times as many candidates are scored again by the original vectors."""
    on_disk: list[str]
    """What is read from the disk only when it is needed: `index`, `vectors`, `payload`."""


class Collection(Described):
    """A collection and what it holds."""

    name: str
    embedder: Embedder
    chunking: dict[str, int | str | bool]
    vectors: dict[str, int | bool]
    """Vectors of each chunk besides the dense one, as they were asked for."""
    documents: int
    chunks: int
    unindexed_chunks: int
    disk_bytes: int
    index: VectorIndex | None = None
    """null where the store does not tell."""
    error: str = ""
    """Reason for which it cannot be served, with which only its name is known; else empty."""
    profile: str | None = None
    """Profile of the questions to it that name none; null for that of the gateway's file."""
    versions: KeptVersions | None = None
    """Earlier versions of documents that it keeps, whose chunks are counted in `chunks`."""


class Collections(Described):
    """Every collection, by name."""

    collections: list[Collection]


class NewDocument(Strict):
    """A document given as text."""

    id: DocumentId
    title: Annotated[PlainText, Field(max_length=2_000)] = ""
    text: PlainText
    media_type: TextFormat = "text/plain"
    """Format of `text`: Markdown and HTML keep their headings, tables and code."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    access: AccessTags | None = None
    """Tags of which a caller must hold one to find it; null keeps those of one that exists."""


class NewDocuments(Strict):
    """Documents given as text, as one job."""

    documents: Annotated[list[NewDocument], Field(min_length=1, fail_fast=True)]


class Accepted(Described):
    """The job that ingests what was sent."""

    job_id: str


class Chunk(Described):
    """A chunk as the index holds it: `text` equals the document's text at `start:end`."""

    chunk_id: str
    start: int
    end: int
    heading_path: list[str]
    page: int | None
    text: str


class DocumentSummary(Described):
    """A document without its text."""

    id: str
    title: str
    filename: str
    media_type: str
    sha256: str
    size_bytes: int
    status: Literal["queued", "ready", "failed"]
    chunk_count: int
    error: str | None
    metadata: dict[str, Any]
    access: list[str] = Field(default_factory=list)
    """Tags of which a caller must hold one to find it; none for every caller."""
    created_at: str
    version: int | None = None
    """From 1; null where the collection keeps no versions."""
    valid_from: str | None = None
    """When the version took the place of the one before."""
    valid_to: str | None = None
    """When the next version took its place; null for the present one."""


class Document(DocumentSummary):
    """A document with its text and its chunks."""

    language: str | None
    """ISO 639-1 code; null where it is unknown."""
    warnings: list[str]
    """Sentences for the document's owner: pages that are only pictures, text that was cut."""
    text: str
    chunks: list[Chunk]


class Documents(Described):
    """One page of documents, by id; pass `next_after` as `after` for the next."""

    documents: list[DocumentSummary]
    next_after: str | None


class Deleted(Described):
    """Result of a deletion."""

    deleted_chunks: int


class Problem(Described):
    """An error: its cause, and whether a retry may help."""

    type: str
    code: str
    message: str
    request_id: str
    retryable: bool


class ErrorReply(Described):
    """The body of every error."""

    error: Problem
