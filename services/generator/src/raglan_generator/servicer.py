"""The wire's view: messages in, domain out, events back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import grpc
from raglan.blocks import Block, from_bytes
from raglan.deadline import Deadline
from raglan.errors import InvalidInput, NotSupported, Overloaded
from raglan.rpc.service_info import service_info
from raglan.scheduling import Lane
from raglan.v1 import common_pb2, generator_pb2, generator_pb2_grpc

from raglan_generator import json_schema
from raglan_generator.generation import (
    Citation,
    Delta,
    Engine,
    Event,
    Finished,
    FinishReason,
    Passage,
    Request,
    Restart,
    Role,
    Sampling,
    Thinking,
    Turn,
    Usage,
)
from raglan_generator.metrics import GeneratorMetrics
from raglan_generator.rewriting import MAX_COUNT, Kind, Rewriter, Rewriting
from raglan_generator.situating import Situated, Situator
from raglan_generator.tracing import end_rewriting, rewriting_span, situating_span, traced

Context = grpc.aio.ServicerContext[Any, Any]

_ROLES = {generator_pb2.ROLE_USER: Role.USER, generator_pb2.ROLE_ASSISTANT: Role.ASSISTANT}
_REASONS = {
    FinishReason.STOP: generator_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: generator_pb2.FINISH_REASON_LENGTH,
    FinishReason.ABSTAINED: generator_pb2.FINISH_REASON_ABSTAINED,
    FinishReason.CONTENT_FILTER: generator_pb2.FINISH_REASON_CONTENT_FILTER,
}
_KINDS = {
    generator_pb2.REWRITE_KIND_REWRITE: Kind.REWRITE,
    generator_pb2.REWRITE_KIND_MULTI_QUERY: Kind.MULTI_QUERY,
    generator_pb2.REWRITE_KIND_HYPOTHETICAL_DOCUMENT: Kind.HYPOTHETICAL_DOCUMENT,
    generator_pb2.REWRITE_KIND_STANDALONE: Kind.STANDALONE,
}
_MAX_NAME_CHARS: Final = 256
_MAX_INSTRUCTIONS_CHARS: Final = 4_000
_MAX_STOPS: Final = 16
_MAX_TEMPERATURE: Final = 2.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a request, named like the settings."""

    max_tokens: int = 512
    max_tokens_limit: int = 4096
    max_passages: int = 100
    max_question_chars: int = 8_000
    max_history_turns: int = 100
    max_concurrency: int = 256


class GeneratorServicer(generator_pb2_grpc.GeneratorServiceServicer):
    """Checks requests against `limits` and hands them to `engine`."""

    def __init__(
        self,
        engine: Engine,
        limits: Limits,
        metrics: GeneratorMetrics,
        metrics_port: Callable[[], int],
        *,
        rewriter: Rewriter | None = None,
        situator: Situator | None = None,
    ) -> None:
        self._situator = situator
        self._engine = engine
        self._limits = limits
        self._metrics = metrics
        self._metrics_port = metrics_port
        self._rewriter = rewriter
        self._running = 0

    async def Generate(
        self, request: generator_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[generator_pb2.GenerateEvent]:
        """Stream one answer."""
        deadline = Deadline.of(context)
        asked = parse(request, self._limits)
        with self._admitted():
            answering = self._metrics.measured(traced(self._engine, asked, deadline))
            async with aclosing(answering) as events:
                async for event in events:
                    yield to_proto(event)

    async def Rewrite(
        self, request: generator_pb2.RewriteRequest, context: Context
    ) -> generator_pb2.RewriteResponse:
        """Write search texts for a question."""
        if self._rewriter is None:
            raise NotSupported(
                f"The {self._engine.info.engine} generator has no language model to write search "
                "texts with (RAGLAN_GENERATOR_ENGINE)."
            )
        deadline = Deadline.of(context)
        asked = parse_rewriting(request, self._limits)
        with self._admitted(), rewriting_span(self._engine, asked) as span:
            written = await self._rewriter.rewrite(asked, deadline)
            end_rewriting(span, written)
        self._metrics.count_tokens(written.usage)
        return generator_pb2.RewriteResponse(
            texts=written.texts,
            usage=_usage(written.usage),
            model=written.model,
            timing=common_pb2.Timing(
                queue_ns=written.queue_ns, compute_ns=written.compute_ns, batch_size=1
            ),
        )

    async def Situate(
        self, request: generator_pb2.SituateRequest, context: Context
    ) -> generator_pb2.SituateResponse:
        """Write a sentence that situates a passage in its document."""
        if self._situator is None:
            raise NotSupported(
                f"The {self._engine.info.engine} generator has no language model to situate "
                "passages with (RAGLAN_GENERATOR_ENGINE)."
            )
        if not request.passage.strip() or not request.document.strip():
            raise InvalidInput("A passage is situated in its document; give both.")
        tenant = _short("tenant", request.tenant, _MAX_NAME_CHARS)
        asked = Situated(request.title, request.document, request.passage, tenant)
        with self._admitted(), situating_span(self._engine, asked) as span:
            written = await self._situator.situate(asked, Deadline.of(context))
            end_rewriting(span, written)
        self._metrics.count_tokens(written.usage)
        return generator_pb2.SituateResponse(
            sentence=written.texts[0],
            usage=_usage(written.usage),
            model=written.model,
            timing=common_pb2.Timing(
                queue_ns=written.queue_ns, compute_ns=written.compute_ns, batch_size=1
            ),
        )

    async def GetInfo(
        self, request: common_pb2.GetInfoRequest, context: Context
    ) -> common_pb2.ServiceInfo:
        """Describe the engine and the limits."""
        info, limits = self._engine.info, self._limits
        facts = common_pb2.ServiceInfo(
            engine=info.engine,
            model=common_pb2.ModelIdentity(id=info.model, revision=info.revision),
            device=info.device,
            dtype=info.dtype,
            limits={
                **info.limits,
                "max_tokens": limits.max_tokens_limit,
                "max_passages": limits.max_passages,
                "max_question_chars": limits.max_question_chars,
                "max_history_turns": limits.max_history_turns,
                "max_concurrency": limits.max_concurrency,
            },
            load={name: float(value) for name, value in asdict(self._engine.load()).items()},
            adapters=info.adapters,
        )
        return service_info("generator", facts, metrics_port=self._metrics_port())

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        if self._running >= self._limits.max_concurrency:
            raise Overloaded(
                f"{self._running} answers are being written, which is the limit "
                "(RAGLAN_GENERATOR_MAX_CONCURRENCY).",
                retry_after_s=1,
            )
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1


def parse(request: generator_pb2.GenerateRequest, limits: Limits) -> Request:
    """The request in the domain's terms.

    Raises:
        InvalidInput: something is missing or over its limit; the message names it.
    """
    if not request.question.strip():
        raise InvalidInput("The question is empty.")
    _within(
        len(request.question),
        limits.max_question_chars,
        "max_question_chars",
        "the question's length in characters",
    )
    _within(
        len(request.standalone_question),
        limits.max_question_chars,
        "max_question_chars",
        "the stand-alone question's length in characters",
    )
    _within(len(request.passages), limits.max_passages, "max_passages", "the number of passages")
    _within(
        len(request.history),
        limits.max_history_turns,
        "max_history_turns",
        "the number of history turns",
    )
    _within(request.max_tokens, limits.max_tokens_limit, "max_tokens_limit", "max_tokens")
    if request.json_schema:
        json_schema.check(request.json_schema)
    return Request(
        question=request.question,
        passages=_passages(request.passages),
        history=tuple(_turn(i, turn) for i, turn in enumerate(request.history)),
        standalone_question=request.standalone_question,
        instructions=_short("instructions", request.instructions, _MAX_INSTRUCTIONS_CHARS),
        max_tokens=request.max_tokens or limits.max_tokens,
        first_token_s=request.first_token_ms / 1e3 if request.first_token_ms else None,
        lane=Lane.BULK if request.lane == common_pb2.LANE_BULK else Lane.INTERACTIVE,
        tenant=_short("tenant", request.tenant, _MAX_NAME_CHARS),
        adapter=_short("adapter", request.adapter, _MAX_NAME_CHARS),
        json_schema=request.json_schema,
        sampling=_sampling(request.sampling),
    )


def parse_rewriting(request: generator_pb2.RewriteRequest, limits: Limits) -> Rewriting:
    """The request in the domain's terms.

    Raises:
        InvalidInput: something is missing or over its limit; the message names it.
    """
    if (kind := _KINDS.get(request.kind)) is None:
        raise InvalidInput(f"kind is {request.kind}; it must be 1 to {len(_KINDS)}.")
    if not request.question.strip():
        raise InvalidInput("The question is empty.")
    _within(
        len(request.question),
        limits.max_question_chars,
        "max_question_chars",
        "the question's length in characters",
    )
    _within(
        len(request.history),
        limits.max_history_turns,
        "max_history_turns",
        "the number of history turns",
    )
    if request.count > MAX_COUNT:
        raise InvalidInput(f"count is {request.count}; the limit is {MAX_COUNT}.")
    return Rewriting(
        kind=kind,
        question=request.question,
        history=tuple(_turn(i, turn) for i, turn in enumerate(request.history)),
        count=request.count or 1,
        tenant=_short("tenant", request.tenant, _MAX_NAME_CHARS),
    )


def _short(name: str, value: str, limit: int) -> str:
    if len(value) > limit:
        raise InvalidInput(f"{name} has {len(value)} characters; the limit is {limit}.")
    return value


def _sampling(asked: generator_pb2.Sampling) -> Sampling:
    if len(asked.stop) > _MAX_STOPS:
        raise InvalidInput(f"sampling.stop has {len(asked.stop)} texts; the limit is {_MAX_STOPS}.")
    if asked.HasField("temperature") and not 0 <= asked.temperature <= _MAX_TEMPERATURE:
        raise InvalidInput(f"sampling.temperature is {asked.temperature:g}; it must be in [0, 2].")
    if asked.HasField("top_p") and not 0 < asked.top_p <= 1:
        raise InvalidInput(f"sampling.top_p is {asked.top_p:g}; it must be in (0, 1].")
    return Sampling(
        temperature=asked.temperature if asked.HasField("temperature") else None,
        top_p=asked.top_p if asked.HasField("top_p") else None,
        seed=asked.seed if asked.HasField("seed") else None,
        stop=tuple(_short("sampling.stop", text, _MAX_NAME_CHARS) for text in asked.stop if text),
    )


def _within(value: int, limit: int, setting: str, what: str) -> None:
    if value > limit:
        raise InvalidInput(
            f"{what} is {value}; the limit is {limit} (RAGLAN_GENERATOR_{setting.upper()})."
        )


def _passages(passages: Sequence[common_pb2.Passage]) -> tuple[Passage, ...]:
    for index, passage in enumerate(passages):
        if passage.end - passage.start != len(passage.text):
            raise InvalidInput(
                f"passages[{index}] spans {passage.start}:{passage.end} but holds "
                f"{len(passage.text)} characters; its quotes would point to the wrong place."
            )
    ranking = _ranking(passages)
    return tuple(
        Passage(
            text=passage.text,
            start=passage.start,
            title=passage.title,
            headings=tuple(passage.heading_path),
            score=getattr(passage.scores, ranking) if ranking else None,
            similarity=passage.scores.dense if passage.scores.HasField("dense") else None,
            reranked=passage.scores.rerank if passage.scores.HasField("rerank") else None,
            matches=tuple(passage.matches),
            blocks=_blocks(index, passage),
            page=passage.page,
            language=passage.language,
            document=_document(passage),
        )
        for index, passage in enumerate(passages)
    )


def _blocks(index: int, passage: common_pb2.Passage) -> tuple[Block, ...]:
    try:
        blocks = from_bytes(passage.structure)
    except ValueError as error:
        raise InvalidInput(f"passages[{index}].structure: {error}") from None
    length = len(passage.text)
    offsets = [(block.start, block.end) for block in blocks]
    offsets += [cell for block in blocks for row in block.rows for cell in row]
    if not all(0 <= start <= end <= length for start, end in offsets):
        raise InvalidInput(f"passages[{index}].structure has a block outside of the text.")
    return blocks


def _document(passage: common_pb2.Passage) -> str:
    """A key of the passage's document; empty where the request does not name one."""
    if not passage.document_id:
        return ""
    return json.dumps((passage.collection, passage.document_id))


def _ranking(passages: Sequence[common_pb2.Passage]) -> Literal["rerank", "fused"] | None:
    # Scores of two rankings have no common scale: one that holds for all, or none.
    names: tuple[Literal["rerank", "fused"], ...] = ("rerank", "fused")
    return next((n for n in names if all(p.scores.HasField(n) for p in passages)), None)


def _turn(index: int, turn: generator_pb2.Turn) -> Turn:
    role = _ROLES.get(turn.role)
    if role is None:
        raise InvalidInput(f"history[{index}].role is {turn.role}; it must be 1 or 2.")
    return Turn(role, turn.text)


def to_proto(event: Event) -> generator_pb2.GenerateEvent:
    """The event as a message."""
    match event:
        case Delta(text):
            return generator_pb2.GenerateEvent(delta=generator_pb2.Delta(text=text))
        case Citation():
            return generator_pb2.GenerateEvent(
                citation=generator_pb2.Citation(
                    marker=event.marker,
                    passage_index=event.passage_index,
                    quote=event.quote,
                    start=event.start,
                    end=event.end,
                    page=event.page,
                    heading_path=event.heading_path,
                )
            )
        case Thinking(text):
            return generator_pb2.GenerateEvent(thinking=generator_pb2.Delta(text=text))
        case Restart():
            return generator_pb2.GenerateEvent(restart=generator_pb2.Restart())
        case Finished():
            return generator_pb2.GenerateEvent(finished=_finished(event))


def _finished(event: Finished) -> generator_pb2.Finished:
    return generator_pb2.Finished(
        reason=_REASONS[event.reason],
        usage=_usage(event.usage),
        confidence=event.support.confidence,
        groundedness=event.support.groundedness,
        parts=event.support.parts,
        claims=[
            generator_pb2.Claim(
                start=claim.start,
                end=claim.end,
                markers=claim.markers,
                support=claim.support,
                conflict=claim.conflict,
            )
            for claim in event.support.claims
        ],
        dropped=event.dropped,
        model=event.model,
        timing=common_pb2.Timing(
            queue_ns=event.queue_ns, compute_ns=event.compute_ns, batch_size=1
        ),
    )


def _usage(usage: Usage) -> generator_pb2.Usage:
    return generator_pb2.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
    )
