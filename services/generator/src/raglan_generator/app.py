"""The composition root: the only place that knows the concrete engines."""

from __future__ import annotations

import grpc
from raglan.rpc.server import Service
from raglan.v1 import generator_pb2_grpc

from raglan_generator.engines.extractive import ExtractiveEngine
from raglan_generator.engines.openai import OpenAIEngine, Timeouts
from raglan_generator.generation import Engine
from raglan_generator.servicer import GeneratorServicer, Limits
from raglan_generator.settings import GeneratorSettings


def build(settings: GeneratorSettings) -> Service:
    """The generator as `settings` describe it."""
    engine = build_engine(settings)
    servicer = GeneratorServicer(
        engine,
        Limits(
            max_tokens=settings.max_tokens,
            max_tokens_limit=settings.max_tokens_limit,
            max_passages=settings.max_passages,
            max_question_chars=settings.max_question_chars,
            max_history_turns=settings.max_history_turns,
            max_concurrency=settings.max_concurrency,
        ),
    )

    def register(server: grpc.aio.Server) -> None:
        generator_pb2_grpc.add_GeneratorServiceServicer_to_server(servicer, server)

    return Service(
        name="raglan.v1.GeneratorService",
        register=register,
        start=engine.start,
        close=engine.close,
    )


def build_engine(settings: GeneratorSettings) -> Engine:
    """The engine that `settings.engine` names."""
    if settings.engine == "openai":
        return OpenAIEngine(
            settings.base_url,
            settings.model,
            api_key=settings.api_key,
            temperature=settings.temperature,
            timeouts=Timeouts(
                connect_s=settings.connect_timeout_s,
                first_token_s=settings.first_token_timeout_s,
                idle_s=settings.idle_timeout_s,
            ),
            max_connections=settings.max_concurrency,
        )
    return ExtractiveEngine(
        max_sentences=settings.max_sentences, min_confidence=settings.min_confidence
    )
