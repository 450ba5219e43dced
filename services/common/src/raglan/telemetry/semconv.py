"""Every name that a span of Raglan carries: its own, its attributes', and the kinds of step.

OpenTelemetry's conventions where they have a name; OpenInference's beside them, so that Phoenix and
Langfuse draw the steps of a query as what they are; `raglan.*` for what neither knows. The names of
GenAI and RPC come from the incubating part of the installed conventions, which renames freely: this
is the only module that imports them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import Final

from opentelemetry.semconv._incubating.attributes import (
    db_attributes,
    gen_ai_attributes,
    rpc_attributes,
    service_attributes,
)
from opentelemetry.semconv.attributes import (
    error_attributes,
    http_attributes,
    server_attributes,
    url_attributes,
)
from pydantic_core import from_json, to_json

# --- Whose span it is (resource) ------------------------------------------------------------------

SERVICE_NAME: Final = service_attributes.SERVICE_NAME
"""The short name: "gateway", "embedder", ..."""
SERVICE_NAMESPACE: Final = service_attributes.SERVICE_NAMESPACE
SERVICE_VERSION: Final = service_attributes.SERVICE_VERSION
SERVICE_INSTANCE_ID: Final = service_attributes.SERVICE_INSTANCE_ID
NAMESPACE: Final = "raglan"

# --- Span names -----------------------------------------------------------------------------------
# A call's span is named by its gRPC method, a route's by method and path, a stage's by the stage.

BATCH: Final = "batch"
"""One batch on a device; links to the request of each of its items."""
QUEUE: Final = "queue"
TOKENIZE: Final = "tokenize"
COMPUTE: Final = "compute"
INDEX_SEARCH: Final = "index.search"
"""One search in the engine behind the retriever."""
INDEX_FETCH: Final = "index.fetch"
"""Reading what was found, or a document's chunks, from it."""
INDEX_UPSERT: Final = "index.upsert"
INDEX_DELETE: Final = "index.delete"
INDEX_LABEL: Final = "index.label"
CHAT: Final = gen_ai_attributes.GenAiOperationNameValues.CHAT.value
INGEST_JOB: Final = "ingest.job"
PARSE: Final = "parse"
EMBED: Final = "embed"
INDEX: Final = "index"
RETRY: Final = "retry"
"""An event: something failed for the time being and is tried again."""

# --- Any span -------------------------------------------------------------------------------------

ERROR_TYPE: Final = error_attributes.ERROR_TYPE
"""The `type` of our error envelope, e.g. "overloaded"; a class name where the error is not ours."""
ERROR_CAUSE: Final = "raglan.error_cause"
"""A dependency's own error text, redacted; callers do not see it."""
DEADLINE_REMAINING_MS: Final = "deadline.remaining_ms"
"""Remaining budget of the request at the start of the step, in milliseconds."""
REQUEST_ID: Final = "raglan.request_id"
TENANT: Final = "raglan.tenant"
"""Whose request or job it is; absent for the mesh's own."""

# --- HTTP -----------------------------------------------------------------------------------------

HTTP_METHOD: Final = http_attributes.HTTP_REQUEST_METHOD
HTTP_ROUTE: Final = http_attributes.HTTP_ROUTE
HTTP_STATUS: Final = http_attributes.HTTP_RESPONSE_STATUS_CODE
URL_PATH: Final = url_attributes.URL_PATH
URL_FULL: Final = url_attributes.URL_FULL

# --- gRPC -----------------------------------------------------------------------------------------

RPC_SYSTEM: Final = rpc_attributes.RPC_SYSTEM_NAME
GRPC: Final = rpc_attributes.RpcSystemNameValues.GRPC.value
RPC_METHOD: Final = rpc_attributes.RPC_METHOD
RPC_STATUS: Final = rpc_attributes.RPC_RESPONSE_STATUS_CODE
"""The name of the gRPC status, e.g. "UNAVAILABLE"."""
PEER: Final = server_attributes.SERVER_ADDRESS
"""The called replica, "host:port"."""
FIRST_REPLY_MS: Final = "raglan.rpc.first_reply_ms"
"""From the start of a streaming call to its first message."""
REPLIES: Final = "raglan.rpc.replies"
"""Messages of a streaming call."""

ATTEMPT: Final = "raglan.attempt"
"""Kind of the attempt: "first", "retry" or "hedge"."""
ATTEMPT_OVERTAKEN: Final = "raglan.attempt.overtaken"
"""True if the attempt was cancelled because another one had finished."""
BREAKER: Final = "raglan.breaker.state"
"""State of the replica's circuit breaker when the call left: closed, open, half_open."""

# --- A stage of a query ---------------------------------------------------------------------------

STAGE: Final = "raglan.stage"
DEGRADED: Final = "raglan.degraded"
"""True on the request's first span where a stage fell back, and the name of an event for each."""
HEDGED: Final = "raglan.hedged"
"""True on the request's first span if a hedge was sent."""
RETRIED: Final = "raglan.retried"
"""True on the request's first span where a call was sent again."""
DEGRADED_REASON: Final = "raglan.degraded.reason"
DEGRADED_FALLBACK: Final = "raglan.degraded.fallback"
STRATEGY: Final = "raglan.strategy"
"""Name of what wrote search texts for a question, or chose how to search a second time."""
STRATEGY_TEXTS: Final = "raglan.strategy.texts"
"""Number of search texts that a model wrote."""
SECOND_TRY_REASON: Final = "raglan.second_try.reason"
SECOND_TRY_HELPED: Final = "raglan.second_try.helped"
"""True if the answer is that of the second try."""
CACHE_LAYER: Final = "raglan.cache.layer"
CACHE_HITS: Final = "raglan.cache.hits"
CACHE_MISSES: Final = "raglan.cache.misses"

# --- Work on a device -----------------------------------------------------------------------------

QUEUE_MS: Final = "raglan.queue_ms"
TOKENIZE_MS: Final = "raglan.tokenize_ms"
COMPUTE_MS: Final = "raglan.compute_ms"
BATCH_SIZE: Final = "raglan.batch.size"
BATCH_TOKENS: Final = "raglan.batch.tokens"
"""Padded."""
BATCH_CLOSED: Final = "raglan.batch.closed"
"""Reason for which the batch was closed; see `raglan.scheduling.FlushReason`."""
BATCH_REQUESTS: Final = "raglan.batch.requests"
"""Requests that the batch served; not all of them are linked when they are very many."""
LANE: Final = "raglan.lane"
TEXTS: Final = "raglan.texts"
PASSAGES: Final = "raglan.passages"
ENGINE: Final = "raglan.engine"

# --- Models (GenAI) -------------------------------------------------------------------------------

OPERATION: Final = gen_ai_attributes.GEN_AI_OPERATION_NAME
EMBEDDINGS: Final = gen_ai_attributes.GenAiOperationNameValues.EMBEDDINGS.value
RETRIEVAL: Final = gen_ai_attributes.GenAiOperationNameValues.RETRIEVAL.value
PROVIDER: Final = gen_ai_attributes.GEN_AI_PROVIDER_NAME
REQUEST_MODEL: Final = gen_ai_attributes.GEN_AI_REQUEST_MODEL
RESPONSE_MODEL: Final = gen_ai_attributes.GEN_AI_RESPONSE_MODEL
MAX_TOKENS: Final = gen_ai_attributes.GEN_AI_REQUEST_MAX_TOKENS
TEMPERATURE: Final = gen_ai_attributes.GEN_AI_REQUEST_TEMPERATURE
INPUT_TOKENS: Final = gen_ai_attributes.GEN_AI_USAGE_INPUT_TOKENS
OUTPUT_TOKENS: Final = gen_ai_attributes.GEN_AI_USAGE_OUTPUT_TOKENS
CACHED_TOKENS: Final = gen_ai_attributes.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS
FINISH_REASONS: Final = gen_ai_attributes.GEN_AI_RESPONSE_FINISH_REASONS
FIRST_TOKEN_S: Final = gen_ai_attributes.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK
DIMENSION: Final = gen_ai_attributes.GEN_AI_EMBEDDINGS_DIMENSION_COUNT

# --- The index ------------------------------------------------------------------------------------

DB_SYSTEM: Final = db_attributes.DB_SYSTEM_NAME
COLLECTION: Final = db_attributes.DB_COLLECTION_NAME
DB_OPERATION: Final = db_attributes.DB_OPERATION_NAME
DB_ROWS: Final = db_attributes.DB_RESPONSE_RETURNED_ROWS
LIMIT: Final = "raglan.search.limit"
MODE: Final = "raglan.search.mode"
FILTERED: Final = "raglan.search.filtered"

# --- Understanding of a question ------------------------------------------------------------------

INTENT: Final = "raglan.query.intent"
LANGUAGE: Final = "raglan.query.language"
"""ISO 639-1; empty where it is uncertain."""

# --- Ingestion ------------------------------------------------------------------------------------

JOB_ID: Final = "raglan.job.id"
JOB_ATTEMPT: Final = "raglan.job.attempt"
JOB_STATUS: Final = "raglan.job.status"
DOCUMENT_ID: Final = "raglan.document.id"
DOCUMENTS: Final = "raglan.documents"
PASSAGES_BEFORE: Final = "raglan.expand.passages_before"
PASSAGES_AFTER: Final = "raglan.expand.passages_after"
CHARS_ADDED: Final = "raglan.expand.chars_added"
BYTES: Final = "raglan.bytes"
RETRIES: Final = "raglan.retries"
RESUMED: Final = "raglan.job.resumed"
"""True if the job resumes after its process ended."""

# --- OpenInference --------------------------------------------------------------------------------

KIND: Final = "openinference.span.kind"
CHAIN: Final = "CHAIN"
EMBEDDING: Final = "EMBEDDING"
RETRIEVER: Final = "RETRIEVER"
RERANKER: Final = "RERANKER"
LLM: Final = "LLM"

EMBEDDING_MODEL: Final = "embedding.model_name"
RERANKER_MODEL: Final = "reranker.model_name"
RERANKER_TOP_K: Final = "reranker.top_k"
LLM_MODEL: Final = "llm.model_name"
LLM_PROMPT_TOKENS: Final = "llm.token_count.prompt"
LLM_COMPLETION_TOKENS: Final = "llm.token_count.completion"
RETRIEVED: Final = "retrieval.documents"
RERANKER_INPUT: Final = "reranker.input_documents"
RERANKER_OUTPUT: Final = "reranker.output_documents"

# Content: only where `raglan.telemetry.tracing.content` lets it through.
INPUT: Final = "input.value"
OUTPUT: Final = "output.value"
RERANKER_QUERY: Final = "reranker.query"
KEYWORDS: Final = "raglan.query.keywords"
TECHNICAL_TERMS: Final = "raglan.query.technical_terms"
SYNONYMS: Final = "raglan.query.synonyms"


MAX_DOCUMENTS_SHOWN: Final = 100
PACKED: Final = ".packed"
"""Ends the name of such a list where it is one attribute: on the way through the mesh, and in the
store of traces."""


@dataclass(frozen=True)
class Documents:
    """A ranked list as one value: of `RETRIEVED`, `RERANKER_INPUT` or `RERANKER_OUTPUT`.

    OpenInference defines an attribute for each field of each document, several hundred in all. They
    are made when the span is read, and most spans never are. Only the first are shown.
    """

    ids: Sequence[str]
    """Best first."""

    scores: Sequence[float | None] = ()
    contents: Sequence[str] = ()
    """Their texts; only where content is traced."""

    @cached_property
    def packed(self) -> bytes:
        """Pack the list as text.

        As objects it would be ten times as large as the rest of a span, and two spans may show the
        same list.
        """
        parts = (self.ids, self.scores, self.contents)
        return to_json([part[:MAX_DOCUMENTS_SHOWN] for part in parts])

    @classmethod
    def unpacked(cls, packed: bytes | str) -> Documents:
        """The list that was `packed`.

        Raises:
            ValueError: it was not.
        """
        match from_json(packed):
            case [list(ids), list(scores), list(contents)]:
                texts = all(isinstance(each, str) for each in (*ids, *contents))
                numbers = (each for each in scores if each is not None)
                if texts and all(isinstance(each, float) and isfinite(each) for each in numbers):
                    return cls(ids, scores, contents)
        raise ValueError("These are no documents.")

    def attributes(self, name: str) -> Iterator[tuple[str, str | float]]:
        """Yield its attributes with the prefix `name`."""
        for index, id_ in enumerate(self.ids[:MAX_DOCUMENTS_SHOWN]):
            document = f"{name}.{index}.document"
            yield f"{document}.id", id_
            if index < len(self.scores) and (score := self.scores[index]) is not None:
                yield f"{document}.score", float(score)
            if index < len(self.contents):
                yield f"{document}.content", self.contents[index]
