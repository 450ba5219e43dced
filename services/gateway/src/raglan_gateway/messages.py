"""Conversion of queries to the services' messages, and of a reranking to passages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from raglan import tensors
from raglan.chunk_text import in_context
from raglan.markup import blank_markup
from raglan.v1 import common_pb2, embedder_pb2, reranker_pb2, retriever_pb2

from raglan_gateway.query import Query


def search(
    query: Query, embedded: embedder_pb2.EmbedResponse | None, candidates: int
) -> retriever_pb2.SearchRequest:
    """Build the search for `query`, lexical where it was not embedded."""
    request = retriever_pb2.SearchRequest(
        collections=query.collections,
        text=query.line,
        mode=query.mode,
        limit=max(query.top_k, candidates if query.rerank or query.has_preferences else 0),
        filter=query.filter,
    )
    if query.as_of_ms is not None:
        request.as_of.FromMilliseconds(query.as_of_ms)
    if embedded is None:
        request.mode = retriever_pb2.SEARCH_MODE_LEXICAL
    else:
        request.vector.CopyFrom(embedded.vectors)
        request.embedder.CopyFrom(embedded.model)
        if embedded.readability:
            request.readability = embedded.readability[0]
        if embedded.HasField("token_vectors"):
            request.token_vectors.CopyFrom(embedded.token_vectors.vectors)
        if embedded.HasField("sparse"):
            request.sparse.CopyFrom(embedded.sparse)
    return request


def each_embedded(reply: embedder_pb2.EmbedResponse) -> Iterator[embedder_pb2.EmbedResponse]:
    """Yield what `reply` says of each of its texts."""
    rows = tensors.unpack(reply.vectors)
    tokens = tensors.unpack_tokens(reply.token_vectors) if reply.HasField("token_vectors") else []
    sparse = tensors.unpack_sparse(reply.sparse) if reply.HasField("sparse") else []
    for at in range(len(rows)):
        alone = slice(at, at + 1)
        yield embedder_pb2.EmbedResponse(
            vectors=tensors.pack(rows[alone]),
            model=reply.model,
            readability=reply.readability[alone],
            token_vectors=tensors.pack_tokens(tokens[alone]) if tokens else None,
            sparse=tensors.pack_sparse(sparse[alone]) if sparse else None,
        )


def rerank(query: Query, passages: Sequence[common_pb2.Passage]) -> reranker_pb2.RerankRequest:
    """Build the reranking of `passages`."""
    return reranker_pb2.RerankRequest(
        query=query.line,
        candidates=[
            reranker_pb2.Candidate(
                text=_lead_in(passage) + blank_markup(passage.text),
                retrieval_score=_retrieval_score(passage),
            )
            for passage in passages
        ],
    )


def _lead_in(passage: common_pb2.Passage) -> str:
    """Title and headings as the reranker reads them before the text of `passage`."""
    lines = in_context(passage.title, passage.heading_path, "")
    return f"{lines}\n" if lines and passage.text else lines


def _retrieval_score(passage: common_pb2.Passage) -> float:
    scores = passage.scores
    for name in ("fused", "dense", "lexical"):
        if scores.HasField(name):
            return float(getattr(scores, name))
    return 0.0


def reordered(
    passages: list[common_pb2.Passage], reply: reranker_pb2.RerankResponse
) -> list[common_pb2.Passage]:
    """Return `passages` in the order of `reply`, exact matches first, with their scores."""
    for ranked in reply.ranked:
        passage = passages[ranked.index]
        if ranked.HasField("calibrated"):
            passage.scores.rerank = ranked.calibrated
        if ranked.matches:
            # The reranker read title and headings before the text.
            before = len(_lead_in(passage))
            passage.matches.extend(at - before for at in ranked.matches if at >= before)
    # A model of meaning reads nothing in an identifier; the passage that holds it stays first.
    exact = [index for index, passage in enumerate(passages) if passage.exact]
    first = list(dict.fromkeys([*exact, *(ranked.index for ranked in reply.ranked)]))
    seen = set(first)
    rest = [index for index in range(len(passages)) if index not in seen]
    return [passages[index] for index in first + rest]


def why_unscored(reply: reranker_pb2.RerankResponse) -> str:
    """Explain why no passage has an absolute score; empty where some have one."""
    if reply.unreadable:
        return "The reranking model does not read the language of these texts."
    if not any(ranked.HasField("calibrated") for ranked in reply.ranked):
        return "The reranker gave no scores."
    return ""
