"""`RerankerService`: wire in, domain, wire out."""

from __future__ import annotations

import os
from typing import Any

import grpc
import raglan
from raglan.deadline import Deadline
from raglan.errors import Unavailable
from raglan.rpc.timing import record_timing
from raglan.telemetry import semconv, tracing
from raglan.v1 import common_pb2, reranker_pb2, reranker_pb2_grpc

from raglan_reranker.reranking import Candidate, Reranker

Context = grpc.aio.ServicerContext[Any, Any]


class RerankerServicer(reranker_pb2_grpc.RerankerServiceServicer):
    """Answers once `loaded` is called, which is after the model has loaded."""

    def __init__(self) -> None:
        self._reranker: Reranker | None = None
        self._info = common_pb2.ServiceInfo()

    def loaded(self, reranker: Reranker, info: common_pb2.ServiceInfo) -> None:
        """From now on, answer with `reranker`, which `info` describes."""
        self._reranker = reranker
        self._info = info
        self._info.pid = os.getpid()
        self._info.service = "reranker"
        self._info.version = raglan.__version__

    async def Rerank(
        self, request: reranker_pb2.RerankRequest, context: Context
    ) -> reranker_pb2.RerankResponse:
        reranker = self._ready()
        tracing.current().set_attributes(
            {
                semconv.KIND: semconv.RERANKER,
                semconv.RERANKER_MODEL: self._info.model.id,
                semconv.PASSAGES: len(request.candidates),
            }
        )
        ranking = await reranker.rerank(
            request.query,
            [Candidate(each.text, each.retrieval_score) for each in request.candidates],
            deadline=Deadline.of(context),
        )
        return reranker_pb2.RerankResponse(
            ranked=[
                reranker_pb2.Ranked(
                    index=each.index,
                    score=each.score,
                    raw_score=each.raw_score,
                    calibrated=each.calibrated,
                    matches=each.matches,
                )
                for each in ranking.ranked
            ],
            timing=record_timing(ranking.timing, tokenize_ns=ranking.tokenize_ns),
            model=self._info.model,
            unreadable=ranking.unreadable,
        )

    async def GetInfo(
        self, request: common_pb2.GetInfoRequest, context: Context
    ) -> common_pb2.ServiceInfo:
        self._ready()
        return self._info

    def _ready(self) -> Reranker:
        if self._reranker is None:
            raise Unavailable("The reranker is still loading its model.", retry_after_s=1)
        return self._reranker
