"""The span of an answer: model, tokens, the first of them, and how it ended."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from opentelemetry.trace import Span
from raglan.deadline import Deadline
from raglan.telemetry import semconv, tracing
from raglan.telemetry.http import trace_headers

from raglan_generator.generation import Delta, Engine, Event, Finished, Request, Restart
from raglan_generator.rewriting import Rewriting, Rewritten
from raglan_generator.situating import Situated


async def traced(engine: Engine, request: Request, deadline: Deadline) -> AsyncGenerator[Event]:
    """Generate with `engine` inside a span that is the parent of the engine's own."""
    model = request.adapter or engine.info.model
    started = time.monotonic()
    texts: list[str] = []
    begun = False
    with tracing.span(f"{semconv.CHAT} {model}", _asked(engine, request, model)) as span:
        request = replace(request, trace_headers=trace_headers())
        async with aclosing(engine.generate(request, deadline)) as events:
            async for event in events:
                match event:
                    case Delta(text):
                        if not begun:
                            begun = True
                            waited_s = round(time.monotonic() - started, 6)
                            span.set_attribute(semconv.FIRST_TOKEN_S, waited_s)
                        if tracing.installed().content:
                            texts.append(text)
                    case Restart():
                        texts.clear()
                    case Finished():
                        _finish(span, event, "".join(texts))
                yield event


def rewriting_span(engine: Engine, asked: Rewriting) -> tracing.span:
    """Span of the search texts that the engine's model writes."""
    return _writing_span(engine, asked.kind.value, asked.question)


def situating_span(engine: Engine, asked: Situated) -> tracing.span:
    """Span of the sentence that the engine's model writes for a passage."""
    return _writing_span(engine, "situate", asked.passage)


def _writing_span(engine: Engine, strategy: str, text: str) -> tracing.span:
    model = engine.info.model
    return tracing.span(
        f"{semconv.CHAT} {model}",
        {
            semconv.KIND: semconv.LLM,
            semconv.OPERATION: semconv.CHAT,
            semconv.PROVIDER: engine.info.engine,
            semconv.REQUEST_MODEL: model,
            semconv.LLM_MODEL: model,
            semconv.STRATEGY: strategy,
            semconv.INPUT: tracing.content(text),
        },
    )


def end_rewriting(span: Span, written: Rewritten) -> None:
    """Record what a model wrote, and its tokens."""
    span.set_attributes(
        {
            semconv.INPUT_TOKENS: written.usage.prompt_tokens,
            semconv.OUTPUT_TOKENS: written.usage.completion_tokens,
            semconv.CACHED_TOKENS: written.usage.cached_tokens,
        }
    )
    if shown := tracing.content("\n".join(written.texts)):
        span.set_attribute(semconv.OUTPUT, shown)


def _asked(engine: Engine, request: Request, model: str) -> dict[str, Any]:
    return {
        semconv.KIND: semconv.LLM,
        semconv.OPERATION: semconv.CHAT,
        semconv.PROVIDER: engine.info.engine,
        semconv.REQUEST_MODEL: model,
        semconv.LLM_MODEL: model,
        semconv.MAX_TOKENS: request.max_tokens,
        semconv.TEMPERATURE: request.sampling.temperature,
        semconv.PASSAGES: len(request.passages),
        semconv.INPUT: tracing.content(request.question),
    }


def _finish(span: Span, end: Finished, text: str) -> None:
    span.set_attributes(
        {
            semconv.RESPONSE_MODEL: end.model,
            semconv.FINISH_REASONS: [end.reason.value],
            semconv.INPUT_TOKENS: end.usage.prompt_tokens,
            semconv.OUTPUT_TOKENS: end.usage.completion_tokens,
            semconv.CACHED_TOKENS: end.usage.cached_tokens,
            semconv.LLM_PROMPT_TOKENS: end.usage.prompt_tokens,
            semconv.LLM_COMPLETION_TOKENS: end.usage.completion_tokens,
            semconv.QUEUE_MS: round(end.queue_ns / 1e6, 3),
            semconv.COMPUTE_MS: round(end.compute_ns / 1e6, 3),
        }
    )
    if shown := tracing.content(text):
        span.set_attribute(semconv.OUTPUT, shown)
