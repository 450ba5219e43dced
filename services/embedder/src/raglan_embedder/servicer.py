"""`EmbedderService`: wire in, domain, wire out."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
from raglan import tensors
from raglan.deadline import Deadline
from raglan.rpc.service_info import ModelServicer
from raglan.rpc.timing import record_timing
from raglan.scheduling import Lane
from raglan.telemetry import semconv, tracing
from raglan.v1 import common_pb2, embedder_pb2, embedder_pb2_grpc

from raglan_embedder.embedding import Embedder, EmbeddingBatch, Kind
from raglan_embedder.outputs import Outputs
from raglan_embedder.token_pooling import check_pooling, pool_tokens

Context = grpc.aio.ServicerContext[Any, Any]

_KINDS: Final = {
    embedder_pb2.INPUT_KIND_QUERY: Kind.QUERY,
    embedder_pb2.INPUT_KIND_PASSAGE: Kind.PASSAGE,
}


class EmbedderServicer(ModelServicer[Embedder], embedder_pb2_grpc.EmbedderServiceServicer):
    """The wire of the embedder."""

    service = "embedder"

    async def Embed(
        self, request: embedder_pb2.EmbedRequest, context: Context
    ) -> embedder_pb2.EmbedResponse:
        outputs = Outputs.DENSE
        if request.sparse:
            outputs |= Outputs.SPARSE
        if request.token_vectors:
            outputs |= Outputs.TOKEN_VECTORS
        pooling = check_pooling(request.token_pooling)
        embedder = self._ready()
        tracing.current().set_attributes(
            {
                semconv.KIND: semconv.EMBEDDING,
                semconv.OPERATION: semconv.EMBEDDINGS,
                semconv.REQUEST_MODEL: self._info.model.id,
                semconv.EMBEDDING_MODEL: self._info.model.id,
                semconv.TEXTS: len(request.texts),
            }
        )
        batch = await embedder.embed(
            request.texts,
            deadline=Deadline.of(context),
            kind=_KINDS.get(request.kind, Kind.UNSTATED),
            lane=Lane.BULK if request.lane == common_pb2.LANE_BULK else Lane.INTERACTIVE,
            dimension=request.dimension,
            outputs=outputs,
        )
        reply = embedder_pb2.EmbedResponse(
            vectors=tensors.pack(batch.vectors),
            model=common_pb2.ModelIdentity(
                id=self._info.model.id,
                revision=self._info.model.revision,
                dimension=batch.vectors.shape[1],
            ),
            token_counts=[text.tokens for text in batch.texts],
            timing=record_timing(batch.timing, tokenize_ns=batch.tokenize_ns),
        )
        for facts in batch.facts:
            if facts.truncated is not None:
                reply.truncated_tokens.append(facts.truncated)
            if facts.readability is not None:
                reply.readability.append(facts.readability)
        if outputs != Outputs.DENSE:
            # Megabytes to copy.
            await asyncio.to_thread(_add_others, reply, batch, pooling)
        return reply

    async def GetTokenizer(
        self, request: embedder_pb2.GetTokenizerRequest, context: Context
    ) -> embedder_pb2.Tokenizer:
        embedder = self._ready()
        reply = embedder_pb2.Tokenizer(model=self._info.model)
        if embedder.tokenizer is not None:
            reply.definition_gz = await asyncio.to_thread(_compressed, embedder.tokenizer.path)
            reply.max_tokens = embedder.tokenizer.max_tokens
        return reply


def _compressed(path: Path) -> bytes:
    # Vocabularies of 250,000 words take 17 MB as they are, more than a message may hold.
    return gzip.compress(path.read_bytes(), compresslevel=6, mtime=0)


def _add_others(reply: embedder_pb2.EmbedResponse, batch: EmbeddingBatch, pooling: int) -> None:
    sparse = [text.sparse for text in batch.texts if text.sparse is not None]
    if sparse:
        reply.sparse.CopyFrom(tensors.pack_sparse(sparse))
    rows = [
        pool_tokens(text.token_vectors, pooling).astype(np.float16)
        for text in batch.texts
        if text.token_vectors is not None
    ]
    if rows:
        reply.token_vectors.CopyFrom(tensors.pack_tokens(rows))
