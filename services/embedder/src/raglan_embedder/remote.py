"""A model on another server, as the service uses it: nothing to tokenise and no queue here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray
from raglan.deadline import Deadline
from raglan.encoders import fingerprint
from raglan.errors import Internal, Overloaded, RaglanError
from raglan.health import Health
from raglan.http_errors import DEFAULT_RETRY_S
from raglan.scheduling import Answer, Lane

from raglan_embedder.embedding import Identity, Kind, PreparedText
from raglan_embedder.engines.http import HttpEngine
from raglan_embedder.outputs import Outputs, TextVectors

log: Final = structlog.get_logger()

BULK_REQUESTS: Final = 4
"""Requests of bulk on their way at once, of the 16 that there may be: the others are queries'."""

Future = asyncio.Future[Answer[TextVectors]]


class RemoteEncoder:
    """An `Encoder` over one `HttpEngine`. Belongs to one event loop; `close` it.

    Args:
        query_prompt: goes before queries; the server adds none that is known here.
        passage_prompt: goes before passages.
        max_waiting_texts: of a lane, that were sent or wait to be.
    """

    limits: Final[dict[str, int]] = {}
    """None of its own: what the server can take, it says itself."""

    tokenizer: Final = None
    """The tokens are known to the server alone."""

    def __init__(
        self,
        engine: HttpEngine,
        *,
        query_prompt: str = "",
        passage_prompt: str = "",
        max_waiting_texts: int = 2_048,
    ) -> None:
        self.engine = engine
        self._prompts = {
            Kind.UNSTATED: "",
            Kind.QUERY: query_prompt,
            Kind.PASSAGE: passage_prompt,
        }
        self._max_waiting_texts = max_waiting_texts
        self._running: set[asyncio.Task[None]] = set()
        self._waiting = dict.fromkeys(Lane, 0)
        self._bulk = asyncio.Semaphore(BULK_REQUESTS)

    @property
    def identity(self) -> Identity:
        """Identity of the model as the server reports it; known after `start`."""
        return Identity(
            id=self.engine.model_id,
            revision=fingerprint.of_use(self.engine.revision, *self._prompts.values())
            if any(self._prompts.values())
            else self.engine.revision,
            dtype=self.engine.dtype,
            dimension=self.engine.dimension,
            outputs=Outputs.DENSE,
            prompts=self._prompts,
        )

    async def start(self, *, deadline: Deadline) -> None:
        """Wait until the server is up; see `HttpEngine.start`."""
        await self.engine.start(deadline=deadline)

    def check(self, count: int, *, deadline: Deadline, lane: Lane) -> None:
        """Refuse what has no room or no time.

        Raises:
            DeadlineExceeded: the time is up.
            Overloaded: too many texts of this lane are on their way.
        """
        deadline.check("the texts were sent to the embedding server")
        waiting = self._waiting[lane]
        if waiting + count > self._max_waiting_texts:
            raise Overloaded(
                f"{waiting} texts are on their way to the embedding server and {count} more would "
                f"pass the limit of {self._max_waiting_texts} (RAGLAN_EMBEDDER_MAX_WAITING_TEXTS).",
                retry_after_s=DEFAULT_RETRY_S,
            )

    async def prepare(
        self, texts: Sequence[str], lane: Lane, *, start: int
    ) -> Sequence[PreparedText]:
        """The texts as they are."""
        return [PreparedText(text) for text in texts]

    def submit(
        self, prepared: Sequence[PreparedText], outputs: Outputs, *, deadline: Deadline, lane: Lane
    ) -> list[Future]:
        """Send texts, so many a request; what a request brings is there when it ends."""
        loop = asyncio.get_running_loop()
        futures: list[Future] = [loop.create_future() for _ in prepared]
        size = self.engine.max_batch_texts
        for first in range(0, len(prepared), size):
            texts = [each.content for each in prepared[first : first + size]]
            self._send(texts, futures[first : first + size], deadline, lane)
        return futures

    def _send(
        self, texts: Sequence[str], futures: Sequence[Future], deadline: Deadline, lane: Lane
    ) -> None:
        """One request, cancelled when no caller waits for any of its texts."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._answer(texts, futures, deadline, lane))
        self._running.add(task)
        self._waiting[lane] += len(texts)

        def ended(task: asyncio.Task[None]) -> None:
            self._running.discard(task)
            self._waiting[lane] -= len(texts)

        def left(_: Future) -> None:
            if all(future.cancelled() for future in futures):
                task.cancel()

        task.add_done_callback(ended)
        for future in futures:
            future.add_done_callback(left)

    def health(self) -> Health:
        """Health of the other server."""
        return self.engine.health()

    async def close(self) -> None:
        """Cancel the requests in flight and close the connections."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self.engine.close()

    async def _answer(
        self, texts: Sequence[str], futures: Sequence[Future], deadline: Deadline, lane: Lane
    ) -> None:
        started_ns = time.monotonic_ns()
        try:
            vectors = await self._vectors(texts, deadline, lane)
        except asyncio.CancelledError:
            for future in futures:
                future.cancel()
            raise
        except RaglanError as error:
            _fail(futures, error)
            return
        except Exception:  # any error reaches the waiting callers
            log.exception("the request to the embedding server failed", texts=len(texts))
            _fail(futures, Internal("The request to the embedding server failed."))
            return
        took_ns = time.monotonic_ns() - started_ns
        for future, vector in zip(futures, vectors, strict=True):
            if not future.done():
                # The tokens are known to the server alone.
                found = TextVectors(tokens=0, dense=vector)
                future.set_result(Answer(found, 0, took_ns, len(texts), 0))

    async def _vectors(
        self, texts: Sequence[str], deadline: Deadline, lane: Lane
    ) -> NDArray[np.float32]:
        """Bulk holds few connections, and waits where the server has no room for it now."""
        if lane is not Lane.BULK:
            return await self.engine.embed(texts, deadline=deadline)
        async with self._bulk:
            while True:
                try:
                    return await self.engine.embed(texts, deadline=deadline)
                except Overloaded as error:
                    wait_s = error.retry_after_s or DEFAULT_RETRY_S
                    if wait_s >= deadline.remaining_s():
                        raise
                    await asyncio.sleep(wait_s)


def _fail(futures: Sequence[Future], error: RaglanError) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
