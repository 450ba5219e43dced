"""`RerankerService`: wire in, domain, wire out."""

from __future__ import annotations

from typing import Any

import grpc
from raglan.deadline import Deadline
from raglan.rpc.service_info import ModelServicer
from raglan.rpc.timing import record_timing
from raglan.telemetry import semconv, tracing
from raglan.v1 import reranker_pb2, reranker_pb2_grpc

from raglan_reranker.reranking import Candidate, Reranker

Context = grpc.aio.ServicerContext[Any, Any]


class RerankerServicer(ModelServicer[Reranker], reranker_pb2_grpc.RerankerServiceServicer):
    """The wire of the reranker."""

    service = "reranker"

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
