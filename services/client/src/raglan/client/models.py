"""Objects of the REST API. A reply of a later gateway may have more fields: they are kept."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field
from raglan.client.model import Model


class Scores(Model):
    """Scores of a passage by stage; None for a stage that did not run."""

    dense: float | None = None
    lexical: float | None = None
    fused: float | None = None
    rerank: float | None = None


class Passage(Model):
    """A piece of a stored document: `text` equals the document's text at `start:end`."""

    chunk_id: str
    """The chunk that was found."""
    chunk_ids: list[str]
    """The chunks that the text consists of, in the order of the document."""
    document_id: str
    collection: str
    title: str
    heading_path: list[str]
    page: int | None
    text: str
    start: int
    end: int
    language: str | None
    rank: int
    duplicates: int
    injection_signs: list[Literal["override", "control", "hidden", "model", "encoded"]] = Field(
        default_factory=list
    )
    """Signs that the text gives orders to a language model; none is no proof."""
    scores: Scores
    metadata: dict[str, Any]
    version: int | None = None


class Citation(Model):
    """`quote` equals the stored text of the document at `start:end`, in characters."""

    marker: int
    document_id: str
    collection: str
    chunk_id: str
    chunk_start: int
    chunk_end: int
    title: str
    heading_path: list[str]
    page: int | None
    quote: str
    start: int
    end: int


class Degraded(Model):
    """A stage that fell back, why, and to what."""

    stage: str
    reason: str
    fallback: str
    collection: str = ""
    """The collection that was left out, of stage `collection`; else empty."""


class SearchedCollection(Model):
    """The search of one collection."""

    collection: str
    took_ms: float
    passages: int
    error: str = ""


class Usage(Model):
    """Tokens of the language model."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


class ClaimSupport(Model):
    """Both in [0, 1]; `cosine` is None where the words alone decided."""

    lexical: float
    cosine: float | None
    conflict: Literal["number", "name", "negation"] | None = None


class Claim(Model):
    """A sentence of the answer, `answer[start:end]`, and whether what it cites supports it."""

    start: int
    end: int
    markers: list[int]
    supported: bool
    support: ClaimSupport


class CachedLayer(Model):
    """A part of a reply that came from a cache: how old it is, and how long making it took."""

    age_s: float
    saved_ms: float


Cached = dict[Literal["embedding", "evidence", "answer", "semantic"], CachedLayer]


class SimilarQuestion(Model):
    """The question that a cached answer was made for, and the cosine of the two vectors."""

    question: str
    similarity: float


StrategyName = Literal["none", "condense", "rewrite", "multi_query", "hyde"]
SecondTryName = Literal["none", "lexical", "rewrite", "multi_query", "hyde"]


class SecondTry(Model):
    """Another search for an answer that abstained, or was of low confidence."""

    strategy: SecondTryName
    reason: Literal["abstained", "low_confidence"]
    helped: bool


class StrategyUsed(Model):
    """How the question was searched, where a strategy took part."""

    name: StrategyName
    texts: list[str]
    second_try: SecondTry | None = None


class SearchReply(Model):
    """Passages, best first."""

    cached: Cached = Field(default_factory=dict)
    strategy: StrategyUsed | None = None
    passages: list[Passage]
    collections: list[SearchedCollection] = Field(default_factory=list)
    degraded: list[Degraded]
    timings_ms: dict[str, float]
    trace_id: str


class Understanding(Model):
    """How a question was understood."""

    intent: Literal["lookup", "how-to", "comparison", "summary", "troubleshooting", "chit-chat"]
    language: str | None
    keywords: list[str]
    technical_terms: list[str]
    synonyms: dict[str, list[str]]


class QueryReply(Model):
    """An answer with its sources."""

    cached: Cached = Field(default_factory=dict)
    strategy: StrategyUsed | None = None
    similar: SimilarQuestion | None = None
    understanding: Understanding | None = None
    id: str
    standalone_question: str = ""
    answer: str
    finish_reason: Literal["stop", "length", "abstained", "content_filter"] = "stop"
    abstained: bool = False
    thinking: str = ""
    citations: list[Citation]
    passages: list[Passage]
    confidence: float
    confidence_parts: dict[str, float]
    groundedness: float
    claims: list[Claim]
    unread_chunk_ids: list[str]
    collections: list[SearchedCollection] = Field(default_factory=list)
    degraded: list[Degraded]
    usage: Usage
    timings_ms: dict[str, float]
    model: str
    trace_id: str


class StreamStart(Model):
    """Ids of a streamed answer, the data of its first event."""

    id: str
    standalone_question: str = ""
    trace_id: str


class StreamSources(Model):
    """The passages that the answer is made of."""

    passages: list[Passage]
    degraded: list[Degraded]
    collections: list[SearchedCollection] = Field(default_factory=list)


class StreamThinking(Model):
    """A piece of the model's reasoning, which is no part of the answer."""

    text: str


class StreamDelta(Model):
    """The next piece of the answer."""

    text: str


class StreamRestart(Model):
    """The answer begins again: the pieces before are void."""


class PreviewedChunk(Model):
    """A chunk as it would be made, with its offsets in the document's text."""

    text: str
    start: int
    end: int
    heading_path: list[str]
    page: int | None
    metadata: dict[str, Any]


class ChunkPreview(Model):
    """A document cut into chunks, of which nothing was stored."""

    chunking: dict[str, int | str]
    title: str
    language: str
    chars: int
    chunk_count: int
    chunks: list[PreviewedChunk]
    warnings: list[str]


class Embedder(Model):
    """The model that made a collection's vectors."""

    id: str
    revision: str
    dimension: int


class KeptVersions(Model):
    """Earlier versions of documents that a collection keeps."""

    max_versions: int
    max_age_days: int | None = None


class VectorIndex(Model):
    """The index of a collection's dense vectors."""

    state: Literal["scanned", "building", "ready"]
    chunks: int
    recall_target: float
    m: int
    ef_construct: int
    ef: int
    quantization: str
    oversampling: float
    on_disk: list[str]


class Collection(Model):
    """A collection and what it holds."""

    name: str
    embedder: Embedder
    chunking: dict[str, int | str | bool]
    vectors: dict[str, int | bool]
    documents: int
    chunks: int
    unindexed_chunks: int
    disk_bytes: int
    index: VectorIndex | None = None
    error: str = ""
    profile: str | None = None
    versions: KeptVersions | None = None


class Collections(Model):
    """Every collection, by name."""

    collections: list[Collection]


class Chunk(Model):
    """A chunk as the index holds it."""

    chunk_id: str
    start: int
    end: int
    heading_path: list[str]
    page: int | None
    text: str


class DocumentSummary(Model):
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
    created_at: str
    version: int | None = None
    valid_from: str | None = None
    valid_to: str | None = None


class DocumentVersions(Model):
    """Versions of a document, the newest first."""

    versions: list[DocumentSummary]


class Document(DocumentSummary):
    """A document with its text and its chunks."""

    language: str | None
    warnings: list[str]
    text: str
    chunks: list[Chunk]


class Documents(Model):
    """One page of documents, by id; pass `next_after` as `after` for the next."""

    documents: list[DocumentSummary]
    next_after: str | None


class NewDocument(Model):
    """A document given as text."""

    model_config = ConfigDict(extra="forbid")

    id: str
    title: str = ""
    text: str
    media_type: Literal[
        "text/plain", "text/markdown", "text/html", "text/x-rst", "text/asciidoc", "text/org",
        "text/csv", "application/json", "application/jsonl",
    ] = "text/plain"  # fmt: skip
    metadata: dict[str, Any] = Field(default_factory=dict)
    access: list[str] | None = None


class Accepted(Model):
    """The job that ingests what was sent."""

    job_id: str


class Deleted(Model):
    """Result of a deletion."""

    deleted_chunks: int


class DeletedDocuments(Deleted):
    """Result of deleting several documents; `missing_ids` were not found."""

    missing_ids: list[str]


class ChangedDocuments(Model):
    """Documents that match a filter, and the job that deletes or tags them."""

    matches: int
    is_exact: bool
    document_ids: list[str]
    job_id: str | None


class Progress(Model):
    """Progress of a stage."""

    done: int
    total: int


class DocumentProblem(Model):
    """A document that failed, and why; or one that its owner should look at."""

    document_id: str
    message: str


class ContextCost(Model):
    """Sentences that a language model wrote for the chunks of a job, and their cost."""

    calls: int
    prompt_tokens: int
    completion_tokens: int
    reused: int
    missing: int


class Job(Model):
    """An ingestion, or a change of documents by a filter."""

    id: str
    collection: str
    kind: Literal["ingest", "delete", "tag"] = "ingest"
    status: Literal["queued", "running", "succeeded", "partial", "failed", "cancelled"]
    stages: dict[str, Progress]
    errors: list[DocumentProblem]
    warnings: list[DocumentProblem]
    warning_count: int
    documents: int
    replaced: int
    unchanged: int
    context: ContextCost | None = None
    created_at: str
    finished_at: str | None


class Jobs(Model):
    """Jobs, newest first."""

    jobs: list[Job]


class Problem(Model):
    """An error as the gateway sends it."""

    type: str
    code: str
    message: str
    request_id: str
    retryable: bool


StreamEvent = (
    StreamStart
    | StreamSources
    | StreamThinking
    | StreamDelta
    | StreamRestart
    | Citation
    | QueryReply
)
"""An event of a streamed answer. The last is the whole reply, a `QueryReply`."""
