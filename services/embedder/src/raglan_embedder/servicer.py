"""`EmbedderService`: wire in, domain, wire out."""

from __future__ import annotations

import os
from typing import Any, Final

import grpc
import raglan
from raglan import tensors
from raglan.deadline import Deadline
from raglan.encoders.queue import Lane
from raglan.errors import Unavailable
from raglan.v1 import common_pb2, embedder_pb2, embedder_pb2_grpc

from raglan_embedder.embedding import Embedder, Kind

Context = grpc.aio.ServicerContext[Any, Any]

_KINDS: Final = {
    embedder_pb2.INPUT_KIND_QUERY: Kind.QUERY,
    embedder_pb2.INPUT_KIND_PASSAGE: Kind.PASSAGE,
}


class EmbedderServicer(embedder_pb2_grpc.EmbedderServiceServicer):
    """Answers once `embedder` is set, which is after the model has loaded."""

    def __init__(self) -> None:
        self.embedder: Embedder | None = None

    async def Embed(
        self, request: embedder_pb2.EmbedRequest, context: Context
    ) -> embedder_pb2.EmbedResponse:
        embedder = self._loaded()
        batch = await embedder.embed(
            request.texts,
            deadline=Deadline.of(context),
            kind=_KINDS.get(request.kind, Kind.UNSTATED),
            lane=Lane.BULK if request.lane == embedder_pb2.LANE_BULK else Lane.INTERACTIVE,
            dimension=request.dimension,
        )
        return embedder_pb2.EmbedResponse(
            vectors=tensors.pack(batch.vectors),
            model=_identity(embedder, batch.vectors.shape[1]),
            token_counts=batch.token_counts,
            timing=common_pb2.Timing(
                queue_ns=batch.timing.queue_ns,
                tokenize_ns=batch.tokenize_ns,
                compute_ns=batch.timing.compute_ns,
                batch_size=batch.timing.batch_size,
                batch_tokens=batch.timing.batch_tokens,
            ),
        )

    async def GetInfo(
        self, request: common_pb2.GetInfoRequest, context: Context
    ) -> common_pb2.ServiceInfo:
        embedder = self._loaded()
        return common_pb2.ServiceInfo(
            service="embedder",
            version=raglan.__version__,
            engine=embedder.engine.name,
            model=_identity(embedder, embedder.model.dimension),
            device=embedder.engine.device,
            dtype=embedder.engine.dtype,
            limits={
                "max_texts": embedder.limits.texts,
                "max_text_chars": embedder.limits.chars,
                "max_text_tokens": embedder.model.max_tokens,
                "max_batch_tokens": embedder.batches.tokens,
                "max_batch_texts": embedder.batches.items,
                "max_waiting_texts": embedder.max_waiting,
                "streams": len(embedder.engine.streams),
            },
            pid=os.getpid(),
        )

    def _loaded(self) -> Embedder:
        if self.embedder is None:
            raise Unavailable("The embedder is still loading its model.", retry_after_s=1)
        return self.embedder


def _identity(embedder: Embedder, dimension: int) -> common_pb2.ModelIdentity:
    return common_pb2.ModelIdentity(
        id=embedder.model.id, revision=embedder.model.revision, dimension=dimension
    )
