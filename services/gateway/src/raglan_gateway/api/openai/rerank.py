"""`POST /v1/rerank` and `/v2/rerank`: the reranker in the form of Cohere's and Jina's APIs."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from raglan.deadline import Deadline
from raglan.errors import Unavailable
from raglan.telemetry import context as request_context
from raglan.v1 import reranker_pb2

from raglan_gateway.api.openai import documented, models
from raglan_gateway.api.openai.embeddings import check_served
from raglan_gateway.api.openai.lenient import Lenient, ListOf
from raglan_gateway.api.text import NonBlankText, PlainText
from raglan_gateway.error_envelopes import InvalidParameter
from raglan_gateway.mesh import Mesh
from raglan_gateway.settings import GatewaySettings

MAX_DOCUMENTS: Final = 1_000
_DOCUMENTS_A_CALL: Final = 100


class DocumentText(Lenient):
    """A document as an object."""

    text: PlainText


class RerankRequest(Lenient):
    """The body of a request for relevance."""

    model: str | None = None
    query: NonBlankText
    documents: ListOf[PlainText | DocumentText]
    top_n: int | None = None
    return_documents: bool | None = None


def router(mesh: Mesh, settings: GatewaySettings) -> APIRouter:
    """The routes of reranking."""
    routes = documented.router(error=documented.RerankError)

    @routes.post("/v1/rerank", **documented.returns(documented.ScoredDocuments))
    async def rerank_v1(body: RerankRequest) -> dict[str, Any]:
        """Score documents; each comes with its text unless `return_documents` is false."""
        return await answer(body, shows_texts=body.return_documents is not False)

    @routes.post("/v2/rerank", **documented.returns(documented.ScoredDocuments))
    async def rerank_v2(body: RerankRequest) -> dict[str, Any]:
        """Score documents; each comes with its text where `return_documents` is true."""
        return await answer(body, shows_texts=body.return_documents is True)

    async def answer(body: RerankRequest, *, shows_texts: bool) -> dict[str, Any]:
        texts = [each if isinstance(each, str) else each.text for each in body.documents]
        _check(body, len(texts), settings)
        deadline = Deadline.after(settings.default_timeout_ms / 1e3)
        deadline.adopt()
        model = body.model or models.DEFAULT
        await check_served(mesh, "reranker", model, deadline)
        scores = await _scores(mesh, body.query, texts, deadline)
        order = sorted(scores, key=lambda index: (-scores[index], index))[: body.top_n]
        return {
            "id": request_context.request_id(),
            "object": "list",
            "model": model,
            "results": [
                {"index": index, "relevance_score": scores[index]}
                | ({"document": {"text": texts[index]}} if shows_texts else {})
                for index in order
            ],
            "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
        }

    return routes


def _check(body: RerankRequest, count: int, settings: GatewaySettings) -> None:
    if not 1 <= count <= MAX_DOCUMENTS:
        raise InvalidParameter(
            f"documents has {count} documents; 1 to {MAX_DOCUMENTS} are scored.",
            param="documents",
        )
    if body.top_n is not None and body.top_n < 1:
        raise InvalidParameter(f"top_n is {body.top_n}; it is at least 1.", param="top_n")
    if len(body.query) > settings.max_query_chars:
        raise InvalidParameter(
            f"query has {len(body.query)} characters; the limit is {settings.max_query_chars} "
            "(RAGLAN_GATEWAY_MAX_QUERY_CHARS).",
            param="query",
        )


async def _scores(mesh: Mesh, query: str, texts: list[str], deadline: Deadline) -> dict[int, float]:
    """Return the relevance of each text; a call scores as many as the reranker's budget holds."""
    scores: dict[int, float] = {index: 0.0 for index, text in enumerate(texts) if not text.strip()}
    waiting = [index for index in range(len(texts)) if index not in scores]
    while waiting:
        asked = waiting[:_DOCUMENTS_A_CALL]
        candidates = [reranker_pb2.Candidate(text=texts[index]) for index in asked]
        reply = await mesh.rerank(
            reranker_pb2.RerankRequest(query=" ".join(query.split()), candidates=candidates),
            deadline=deadline,
        )
        if reply.unreadable:
            raise InvalidParameter(
                "The reranking model does not read the language of these texts.", param="documents"
            )
        if not reply.ranked:
            raise Unavailable(f"The reranker scored {len(scores)} of {len(texts)} documents.")
        for ranked in reply.ranked:
            known = ranked.HasField("calibrated")
            scores[asked[ranked.index]] = ranked.calibrated if known else ranked.raw_score
        waiting = [index for index in waiting if index not in scores]
    return scores
