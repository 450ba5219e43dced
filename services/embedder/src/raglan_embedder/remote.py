"""A model on another server, as the service uses it: nothing to tokenise and no queue here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import structlog
from raglan.deadline import Deadline
from raglan.encoders import fingerprint
from raglan.errors import Internal, RaglanError
from raglan.health import Health
from raglan.scheduling import Answer, Lane

from raglan_embedder.embedding import Identity, Kind, PreparedText
from raglan_embedder.engines.http import HttpEngine
from raglan_embedder.outputs import Outputs, TextVectors

log: Final = structlog.get_logger()

Future = asyncio.Future[Answer[TextVectors]]


class RemoteEncoder:
    """An `Encoder` over one `HttpEngine`. Belongs to one event loop; `close` it."""

    limits: Final[dict[str, int]] = {}
    """None of its own: what the server can take, it says itself."""

    tokenizer: Final = None
    """The tokens are known to the server alone."""

    def __init__(
        self, engine: HttpEngine, *, query_prompt: str = "", passage_prompt: str = ""
    ) -> None:
        """The prompts go before queries and passages; the server adds none that are known here."""
        self.engine = engine
        self._prompts = {
            Kind.UNSTATED: "",
            Kind.QUERY: query_prompt,
            Kind.PASSAGE: passage_prompt,
        }
        self._running: set[asyncio.Task[None]] = set()

    @property
    def identity(self) -> Identity:
        """Which model makes the vectors, as far as the server says; known after `start`."""
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
        """Raise DeadlineExceeded when the time is up."""
        deadline.check("the texts were sent to the embedding server")

    async def prepare(
        self, texts: Sequence[str], lane: Lane, *, start: int
    ) -> Sequence[PreparedText]:
        """The texts as they are."""
        return [PreparedText(text) for text in texts]

    def submit(
        self, prepared: Sequence[PreparedText], outputs: Outputs, *, deadline: Deadline, lane: Lane
    ) -> list[Future]:
        """Send texts, all of them or none; given up when nobody waits for any of them."""
        loop = asyncio.get_running_loop()
        texts = [each.content for each in prepared]
        futures: list[Future] = [loop.create_future() for _ in texts]
        task = loop.create_task(self._answer(texts, futures, deadline))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

        def left(_: Future) -> None:
            if all(future.cancelled() for future in futures):
                task.cancel()

        for future in futures:
            future.add_done_callback(left)
        return futures

    def health(self) -> Health:
        """Always serving: whether the other server answers, each call finds out for itself."""
        return Health.SERVING

    async def close(self) -> None:
        """Give up what is on its way and close the connections."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self.engine.close()

    async def _answer(
        self, texts: Sequence[str], futures: Sequence[Future], deadline: Deadline
    ) -> None:
        started_ns = time.monotonic_ns()
        try:
            vectors = await self.engine.embed(texts, deadline=deadline)
        except asyncio.CancelledError:
            for future in futures:
                future.cancel()
            raise
        except RaglanError as error:
            _fail(futures, error)
            return
        except Exception:  # whatever it is, those who wait are told
            log.exception("the request to the embedding server failed", texts=len(texts))
            _fail(futures, Internal("The request to the embedding server failed."))
            return
        took_ns = time.monotonic_ns() - started_ns
        for future, vector in zip(futures, vectors, strict=True):
            if not future.done():
                # The tokens are known to the server alone.
                found = TextVectors(tokens=0, dense=vector)
                future.set_result(Answer(found, 0, took_ns, len(texts), 0))


def _fail(futures: Sequence[Future], error: RaglanError) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
