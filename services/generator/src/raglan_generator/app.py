"""The composition root: the only place that knows the concrete engines."""

from __future__ import annotations

from typing import Final

import grpc
from raglan.rpc.server import Service
from raglan.telemetry.metrics import Endpoint
from raglan.v1 import generator_pb2_grpc

from raglan_generator.answering import Answering
from raglan_generator.engines.extractive import ExtractiveEngine
from raglan_generator.engines.null import NullEngine
from raglan_generator.engines.vllm import VllmModel
from raglan_generator.estimated_tokenizer import EstimatedTokenizer, FileTokenizer
from raglan_generator.generation import Engine, Sampling
from raglan_generator.language_model import LanguageModel
from raglan_generator.metrics import GeneratorMetrics
from raglan_generator.passage_order import PassageOrder
from raglan_generator.rewriting import Rewriter
from raglan_generator.servicer import GeneratorServicer, Limits
from raglan_generator.settings import GeneratorSettings
from raglan_generator.situating import Situator


def build(settings: GeneratorSettings) -> Service:
    """The generator as `settings` describe it."""
    metrics = Endpoint.of(settings)
    counted = GeneratorMetrics(metrics.registry)
    engine = build_engine(settings)
    counted.watch(engine)
    limits = Limits(
        max_tokens=settings.max_tokens,
        max_tokens_limit=settings.max_tokens_limit,
        max_passages=settings.max_passages,
        max_question_chars=settings.max_question_chars,
        max_history_turns=settings.max_history_turns,
        max_concurrency=settings.max_concurrency,
    )
    servicer = GeneratorServicer(
        engine,
        limits,
        counted,
        metrics_port=lambda: metrics.port,
        rewriter=Rewriter(engine.model) if isinstance(engine, Answering) else None,
        situator=Situator(engine.model) if isinstance(engine, Answering) else None,
    )

    def register(server: grpc.aio.Server) -> None:
        generator_pb2_grpc.add_GeneratorServiceServicer_to_server(servicer, server)

    return Service(
        name="raglan.v1.GeneratorService",
        register=register,
        start=engine.start,
        close=engine.close,
        health=engine.health,
        metrics=metrics,
    )


def build_engine(settings: GeneratorSettings) -> Engine:
    """The engine that `settings.engine` names."""
    if settings.engine == "extractive":
        return ExtractiveEngine(
            max_sentences=settings.max_sentences, min_confidence=settings.min_confidence
        )
    if settings.engine == "null":
        return NullEngine(
            tokens=settings.null_tokens,
            first_token_s=settings.null_first_token_ms / 1e3,
            token_s=settings.null_token_ms / 1e3,
        )
    return Answering(
        _MODELS[settings.engine](settings),
        PassageOrder(settings.passage_order),
        min_relevance=settings.min_relevance,
        opens_thinking=settings.thinking == "opened",
        max_thinking_chars=settings.max_thinking_chars,
    )


def _openai(settings: GeneratorSettings) -> LanguageModel:
    # The HTTP client takes 8 MB that no other engine needs.
    from raglan_generator.engines.openai import OpenAIModel
    from raglan_generator.engines.openai_response import Timeouts

    longest = settings.max_model_len or _MAX_MODEL_LEN
    return OpenAIModel(
        settings.base_url,
        settings.model,
        tokenizer=FileTokenizer(settings.tokenizer, longest)
        if settings.tokenizer
        else EstimatedTokenizer(longest),
        api_key=settings.api_key,
        sampling=_sampling(settings),
        adapters=settings.adapters,
        timeouts=Timeouts(
            connect_s=settings.connect_timeout_s,
            first_token_s=settings.first_token_timeout_s,
            idle_s=settings.idle_timeout_s,
        ),
        max_connections=settings.max_concurrency,
    )


def _vllm(settings: GeneratorSettings) -> LanguageModel:
    return VllmModel(
        settings.model,
        settings,
        adapters=settings.adapters,
        max_model_len=settings.max_model_len,
        sampling=_sampling(settings),
        shutdown_timeout_s=settings.shutdown_grace_s,
    )


def _sampling(settings: GeneratorSettings) -> Sampling:
    return Sampling(temperature=settings.temperature, top_p=settings.top_p)


_MODELS: Final = {"openai": _openai, "vllm": _vllm}
_MAX_MODEL_LEN: Final = 8_192
"""Assumed context length of a server's model that reports none, in tokens."""
