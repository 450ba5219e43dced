"""Engine `http`: a server that reranks, in Cohere's form or that of text-embeddings-inference.

Jina, Infinity, vLLM and many others speak Cohere's: `{"query", "documents", "model", "top_n"}` ->
`{"results": [{"index", "relevance_score"}]}`. Text-embeddings-inference (TEI) has its own:
`{"query", "texts"}` -> `[{"index", "score"}]`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded
from raglan.health import Health
from raglan.http_client import ModelServer
from raglan.http_errors import RemoteServer
from raglan.scheduling import LatencyModel, Timing

from raglan_reranker.budget import affordable
from raglan_reranker.engines import Prepared, Scored

Api = Literal["cohere", "tei"]

CALLED: Final = RemoteServer("The reranking server", "RAGLAN_RERANKER")

DEFAULT_BATCH_TEXTS: Final = 32
"""Passages a request holds: TEI's default limit."""

_SHARE_OF_TIME: Final = 2 / 3
"""Of the time that is left, what may be planned: the server may be busier than it has been."""

_CHARS_A_TOKEN: Final = 4
"""Of English text in common vocabularies; the server's tokenizer is not known here."""


class HttpReranking:
    """One model of one server; `start` it, `close` it. Its scores are passed on as they are.

    Args:
        model: the name to ask for; `tei` serves one model and needs none.
        max_batch_texts: passages a request holds; more are sent as several requests at once.
    """

    name = "http"
    device = "remote"
    dtype = "remote"
    dimension = 0

    def __init__(
        self,
        server: ModelServer,
        *,
        model: str,
        api: Api = "cohere",
        max_batch_texts: int = DEFAULT_BATCH_TEXTS,
    ) -> None:
        self._server = server
        self._model = model
        self._api = api
        self._max_batch_texts = max_batch_texts
        # Of the other server, whose queue is its own: whole calls, in estimated tokens.
        self._latency = LatencyModel(seconds_per_token=1 / 4_000, overhead_s=0.01)

    async def start(self, *, deadline: Deadline) -> None:
        """Wait until the server is up and scores a pair.

        Raises:
            RaglanError: no proper answer until the deadline; the message says why.
        """

        async def probe(deadline: Deadline) -> None:
            await self._request("query", ["passage"], deadline)

        await self._server.until_up(probe, deadline=deadline)

    def prepare(self, query: str, passages: Sequence[str]) -> Prepared:
        """The texts as they are; tokens are estimated from their length."""
        of_query = len(query) // _CHARS_A_TOKEN
        tokens = [1 + of_query + len(text) // _CHARS_A_TOKEN for text in passages]
        return Prepared(query, passages, 0, tokens)

    def fitting(self, prepared: Prepared, *, deadline: Deadline) -> int:
        """By how long the server took for earlier calls; at least one."""
        within = self._latency.tokens_within(_SHARE_OF_TIME * deadline.remaining_s())
        tokens = prepared.passage_tokens
        fit = affordable(0, tokens, count=len(tokens), tokens=within)
        return max(fit, min(1, len(tokens)))

    async def score(self, prepared: Prepared, count: int, *, deadline: Deadline) -> Scored:
        """The server's scores, of its own scale: 0..1 with most.

        Raises:
            RaglanError: as `ModelServer.post`; Internal also for scores that are none.
        """
        started_ns = time.monotonic_ns()
        passages = prepared.passages[:count]
        starts = range(0, count, self._max_batch_texts)
        batches = [passages[start : start + self._max_batch_texts] for start in starts]
        parts = [
            asyncio.ensure_future(self._request(prepared.query, batch, deadline))
            for batch in batches
        ]
        try:
            scores = np.concatenate(await asyncio.gather(*parts))
            self._learn(prepared, count, started_ns)
        except DeadlineExceeded:
            # It takes at least this long: a server that has become slow gets smaller requests.
            self._learn(prepared, count, started_ns)
            raise
        finally:
            for part in parts:
                part.cancel()
        timing = Timing(
            queue_ns=0,
            compute_ns=time.monotonic_ns() - started_ns,
            batch_size=len(batches[0]),
            batch_tokens=sum(prepared.passage_tokens[: len(batches[0])]),
        )
        return Scored(scores, timing, [()] * count)

    def _learn(self, prepared: Prepared, count: int, started_ns: int) -> None:
        seconds = (time.monotonic_ns() - started_ns) / 1e9
        self._latency.observe(sum(prepared.passage_tokens[:count]), seconds)

    def health(self) -> Health:
        """Health of the server."""
        return self._server.health()

    async def close(self) -> None:
        """Close the connections."""
        await self._server.close()

    async def _request(
        self, query: str, passages: Sequence[str], deadline: Deadline
    ) -> NDArray[np.float64]:
        def scores(answer: Any) -> NDArray[np.float64]:
            if self._api == "tei":
                return _checked(answer, "score", len(passages))
            return _checked(answer["results"], "relevance_score", len(passages))

        texts = list(passages)
        if self._api == "tei":
            body: dict[str, Any] = {"query": query, "texts": texts, "truncate": True}
        else:
            # All of them are wanted back: without top_n some servers return the best few.
            body = {"query": query, "documents": texts, "model": self._model, "top_n": len(texts)}
        return await self._server.post("/rerank", body, scores, deadline=deadline)


def _checked(results: list[Any], key: str, count: int) -> NDArray[np.float64]:
    """The score of each of `count` passages, in their order. Raises ValueError where it is none."""
    if sorted(item["index"] for item in results) != list(range(count)):
        raise ValueError(f"{len(results)} results that are not one for each of {count} passages")
    scores = np.zeros(count, np.float64)
    for item in results:
        scores[item["index"]] = float(item[key])
    if not np.isfinite(scores).all():
        raise ValueError("a score is not a finite number")
    return scores
