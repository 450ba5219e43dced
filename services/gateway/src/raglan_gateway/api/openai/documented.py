"""Replies of the APIs that clients brought along, as the OpenAPI document shows them.

Routes build their replies as plain objects; these models only describe them. They name the fields
that we send, not all that OpenAI's API has.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from fastapi import APIRouter
from pydantic import BaseModel

from raglan_gateway.api.error_responses import error_responses

TAG: Final = "openai"
_STATUSES: Final = (400, 401, 403, 404, 405, 408, 409, 413, 415, 429, 431, 500, 501, 503, 504, 507)


class OpenAIProblem(BaseModel):
    """Error of OpenAI's API."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """Reply of a request that failed."""

    error: OpenAIProblem


class RerankError(BaseModel):
    """Reply of a request that failed: Cohere's clients read `message`, Jina's `detail`."""

    id: str
    message: str
    detail: str


class ServedModel(BaseModel):
    """A model: the default, or a profile."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ServedModels(BaseModel):
    """Every model."""

    object: Literal["list"]
    data: list[ServedModel]


class CompletionMessage(BaseModel):
    """The answer of a chat."""

    role: Literal["assistant"]
    content: str
    refusal: None
    annotations: list[dict[str, Any]]


class CompletionChoice(BaseModel):
    """The only choice of a chat completion."""

    index: int
    message: CompletionMessage
    logprobs: None
    finish_reason: str


class CompletionUsage(BaseModel):
    """Tokens of a chat completion."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]


class ChatCompletion(BaseModel):
    """A chat completion; `raglan` holds the rest of a query's reply."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage
    raglan: dict[str, Any]


class ModelResponse(BaseModel):
    """A response; `raglan` holds the rest of a query's reply."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "incomplete", "failed", "in_progress"]
    model: str
    output: list[dict[str, Any]]
    usage: dict[str, Any] | None
    raglan: dict[str, Any]


class EmbeddedText(BaseModel):
    """A vector: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """Tokens of texts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddedTexts(BaseModel):
    """Vectors in the order of the texts."""

    object: Literal["list"]
    model: str
    data: list[EmbeddedText]
    usage: EmbeddingUsage


class ScoredDocument(BaseModel):
    """A document's place in the request, and its relevance."""

    index: int
    relevance_score: float
    document: dict[str, str] = {}


class ScoredDocuments(BaseModel):
    """Documents, the most relevant first."""

    id: str
    object: Literal["list"]
    model: str
    results: list[ScoredDocument]
    meta: dict[str, Any]


class FileObject(BaseModel):
    """A file."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"]


class DeletedObject(BaseModel):
    """Something that is deleted."""

    id: str
    object: str
    deleted: Literal[True]


class _Page(BaseModel):
    object: Literal["list"]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileObjects(_Page):
    """A page of files."""

    data: list[FileObject]


class FileCounts(BaseModel):
    """Files by their state."""

    in_progress: int
    completed: int
    failed: int
    cancelled: int
    total: int


class VectorStore(BaseModel):
    """A vector store: a collection."""

    id: str
    object: Literal["vector_store"]
    created_at: int
    name: str
    metadata: dict[str, str]
    status: Literal["in_progress", "completed"]
    usage_bytes: int
    file_counts: FileCounts


class VectorStoreObjects(_Page):
    """A page of vector stores."""

    data: list[VectorStore]


class VectorStoreFile(BaseModel):
    """A file of a vector store: a document."""

    id: str
    object: Literal["vector_store.file"]
    created_at: int
    vector_store_id: str
    status: Literal["in_progress", "completed", "failed", "cancelled"]
    last_error: dict[str, str] | None
    usage_bytes: int
    attributes: dict[str, str | float | bool]
    chunking_strategy: dict[str, Any]


class VectorStoreFiles(_Page):
    """A page of a vector store's files."""

    data: list[VectorStoreFile]


class FileBatch(BaseModel):
    """Files that are attached together: a job."""

    id: str
    object: Literal["vector_store.files_batch"]
    created_at: int
    vector_store_id: str
    status: Literal["in_progress", "completed", "failed", "cancelled"]
    file_counts: FileCounts


class FileTexts(BaseModel):
    """The text of a file."""

    object: Literal["vector_store.file_content.page"]
    data: list[dict[str, str]]
    has_more: bool
    next_page: str | None


class FoundPassage(BaseModel):
    """A passage that a search found."""

    file_id: str
    filename: str
    score: float
    attributes: dict[str, str | float | bool]
    content: list[dict[str, str]]


class FoundPassages(BaseModel):
    """Passages, the most relevant first."""

    object: Literal["vector_store.search_results.page"]
    search_query: list[str]
    data: list[FoundPassage]
    has_more: bool
    next_page: str | None


def router(prefix: str = "", error: type[BaseModel] = OpenAIError) -> APIRouter:
    """Build a router whose errors have the form of their API."""
    return APIRouter(prefix=prefix, tags=[TAG], responses=error_responses(error, _STATUSES))


def returns(model: type[BaseModel], *, streams: str = "") -> dict[str, Any]:
    """Return the arguments of a route that describe its reply.

    Args:
        model: of the reply.
        streams: description of the events of a reply that is a stream.
    """
    reply: dict[str, Any] = {"model": model}
    if streams:
        reply["content"] = {"text/event-stream": {"schema": {"description": streams}}}
    return {"response_model": None, "responses": {200: reply}}
