"""Span of a stage: its kind, the service's own timing and the results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from opentelemetry import trace
from raglan.telemetry import semconv, tracing
from raglan.v1 import common_pb2, generator_pb2, retriever_pb2

from raglan_gateway.traces import request_outcome
from raglan_gateway.understanding.reading import Reading

_KINDS: Final = {
    "embed": semconv.EMBEDDING,
    "retrieve": semconv.RETRIEVER,
    "rerank": semconv.RERANKER,
    "expand": semconv.RETRIEVER,
    # The generator's own span is the LLM's.
    "generate": semconv.CHAIN,
    "cite": semconv.EMBEDDING,
    # The generator's own span is the LLM's, and the second try holds stages.
    "strategy": semconv.CHAIN,
    "second_try": semconv.CHAIN,
}
_NS_IN_MS: Final = 1e6


def stage_span(stage: str, remaining_s: float) -> tracing.span:
    """The span of `stage`, which a query enters with so much time left."""
    return tracing.span(
        stage,
        {
            semconv.STAGE: stage,
            semconv.KIND: _KINDS.get(stage, semconv.CHAIN),
            semconv.DEADLINE_REMAINING_MS: round(remaining_s * 1e3, 1),
        },
    )


def spent(timing: common_pb2.Timing) -> None:
    """Record the service's own timing."""
    tracing.current().set_attributes(
        {
            semconv.QUEUE_MS: timing.queue_ns / _NS_IN_MS,
            semconv.TOKENIZE_MS: timing.tokenize_ns / _NS_IN_MS,
            semconv.COMPUTE_MS: timing.compute_ns / _NS_IN_MS,
            semconv.BATCH_SIZE: timing.batch_size,
        }
    )


def retrieved(passages: Sequence[common_pb2.Passage]) -> semconv.Documents | None:
    """Record the retrieved passages, best first, for `reranked`. None without tracing."""
    return _documents(semconv.RETRIEVED, passages, "fused", "dense", "lexical")


def reranked(given: semconv.Documents | None, passages: Sequence[common_pb2.Passage]) -> None:
    """Record the reranker's input `given` and its order."""
    if given is not None:
        tracing.current().set_attribute(semconv.RERANKER_INPUT, cast(Any, given))
        _documents(semconv.RERANKER_OUTPUT, passages, "rerank")


def expanded(before: Sequence[common_pb2.Passage], after: Sequence[common_pb2.Passage]) -> None:
    """Record how many passages were joined to how many, and the characters that were added."""
    tracing.current().set_attributes(
        {
            semconv.PASSAGES_BEFORE: len(before),
            semconv.PASSAGES_AFTER: len(after),
            semconv.CHARS_ADDED: sum(len(each.text) for each in after)
            - sum(len(each.text) for each in before),
        }
    )


def _documents(
    name: str, passages: Sequence[common_pb2.Passage], *scores: str
) -> semconv.Documents | None:
    """A ranked list; each passage with the first of these scores that any of them has."""
    if not tracing.current().is_recording():
        return None
    passages = passages[: semconv.MAX_DOCUMENTS_SHOWN]
    ranked = semconv.Documents(
        [passage.chunk_id for passage in passages],
        _scores(passages, scores),
        [passage.text for passage in passages] if tracing.installed().content else (),
    )
    tracing.current().set_attribute(name, cast(Any, ranked))
    return ranked


def generated(finished: generator_pb2.Finished) -> None:
    """Record the model of the answer and its tokens."""
    tracing.current().set_attributes(
        {
            semconv.RESPONSE_MODEL: finished.model,
            semconv.INPUT_TOKENS: finished.usage.prompt_tokens,
            semconv.OUTPUT_TOKENS: finished.usage.completion_tokens,
        }
    )


def returned(span: trace.Span, answer: str, passages: Sequence[common_pb2.Passage] = ()) -> None:
    """Record the reply on the request's span, where content is traced: `answer`, else passages."""
    if tracing.installed().content:
        text = answer or "\n\n".join(passage.text for passage in passages)
        span.set_attribute(semconv.OUTPUT, tracing.content(text) or "")


def understood(found: Reading, synonyms: Sequence[retriever_pb2.Synonym]) -> None:
    """Record how the question was understood; its words only where content is traced."""
    span = tracing.current()
    span.set_attributes({semconv.INTENT: found.intent, semconv.LANGUAGE: found.language})
    for name, words in (
        (semconv.KEYWORDS, found.keywords),
        (semconv.TECHNICAL_TERMS, found.technical_terms),
        (semconv.SYNONYMS, [other for each in synonyms for other in each.others]),
    ):
        if (text := tracing.content(", ".join(words))) is not None:
            span.set_attribute(name, text)


def fell_back(stage: str, reason: str, fallback: str) -> None:
    """An event of the span that is current: the request's own, where that of the stage is over."""
    request_outcome.note_degraded()
    tracing.current().add_event(
        semconv.DEGRADED,
        {
            semconv.STAGE: stage,
            semconv.DEGRADED_REASON: reason,
            semconv.DEGRADED_FALLBACK: fallback,
        },
    )


def _scores(passages: Sequence[common_pb2.Passage], names: Sequence[str]) -> Sequence[float | None]:
    """Of one ranking, so all by the same name: the first that any of them has."""
    found = [passage.scores for passage in passages]
    for name in names:
        if any(scores.HasField(name) for scores in found):  # type: ignore[arg-type]
            return [
                getattr(scores, name) if scores.HasField(name) else None  # type: ignore[arg-type]
                for scores in found
            ]
    return ()
