"""Token ids before the queue, vectors behind it: a loaded model as the service uses it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, Protocol

from raglan.deadline import Deadline
from raglan.encoders import sessions
from raglan.encoders.device import usable_cores
from raglan.encoders.metrics import EncoderMetrics
from raglan.encoders.model import EncoderModel
from raglan.encoders.tokenizer import Tokenizers
from raglan.errors import DeadlineExceeded, Unavailable
from raglan.health import Health
from raglan.scheduling import (
    Answer,
    Dispatcher,
    Lane,
    LatencyModel,
    Limits,
    Pool,
    Stream,
)

from raglan_embedder.embedding import Identity, Kind, PreparedText, TextFacts, TokenizerFile
from raglan_embedder.engines import EmbedBatch, Engine
from raglan_embedder.outputs import EncodeItem, Outputs, TextVectors, checked

INLINE_CHARS: Final = 2_000
"""Texts of up to so many characters are tokenised on the loop: that takes 0.2 ms, and a thread
adds as much to the latency of a query."""

_TOKENIZING_THREADS: Final = {Lane.INTERACTIVE: 4, Lane.BULK: 2}
"""At most. Those of bulk are few and not niced: they hold the interpreter's lock while they convert
tokens, and a niced thread that does stops the event loop on a busy machine."""

SLICE_CHARS: Final = 50_000
"""Characters that a thread tokenises (60 ms) before another call may have it."""

Futures = list["asyncio.Future[Answer[TextVectors]]"]


class Tokenizing(Protocol):
    """Text to token ids; may be used from any thread."""

    def read(self, texts: Sequence[str], *, start: int) -> Sequence[PreparedText]:
        """Token ids of each text, cut at the end; `start` characters of each are a prompt."""


class ModelTokenizing:
    """By the tokenizer in a model's folder."""

    def __init__(self, tokenizers: Tokenizers) -> None:
        self.tokenizers = tokenizers

    @classmethod
    def of(cls, model: EncoderModel) -> ModelTokenizing:
        """Read the tokenizer of `model`: up to seconds, so in a thread.

        Raises:
            InvalidInput: a prompt leaves no room for a text.
        """
        prompts = (model.default_prompt, model.query_prompt, model.passage_prompt)
        return cls(Tokenizers(model.path, model.max_tokens, prompts))

    def read(self, texts: Sequence[str], *, start: int) -> list[PreparedText]:
        """Prepare texts like `Tokenizing.read`, with the tokenizer's report on each."""
        return [
            PreparedText(each.ids, len(each.ids), TextFacts(each.truncated, each.readability.value))
            for each in self.tokenizers.read(texts, start=start)
        ]


class DeviceEncoder:
    """One engine behind its queue. Belongs to one event loop; `close` it."""

    def __init__(
        self,
        engine: Engine,
        model: EncoderModel,
        *,
        limits: Limits,
        stalled_after_s: float,
        metrics: EncoderMetrics,
        tokenizing: Tokenizing,
    ) -> None:
        """Starts the threads; takes no time itself.

        Args:
            engine: inference engine.
            model: the resolved model.
            limits: of a device batch.
            stalled_after_s: time without progress after which health is STALLED.
            metrics: receives the scheduler's events.
            tokenizing: of the model; see `ModelTokenizing.of`.
        """
        # Its thread pool would run bulk texts at the priority of queries.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self.engine = engine
        self._model = model
        self._dimension = model.dimension
        self._limits = limits
        self._metrics = metrics
        self._tokenizers = tokenizing
        cores = usable_cores()
        self._tokenizing = {
            lane: ThreadPoolExecutor(min(most, cores), f"tokenize-{lane.name.lower()}")
            for lane, most in _TOKENIZING_THREADS.items()
        }
        self._dispatcher: Dispatcher[EncodeItem, TextVectors] = Dispatcher(
            pools(engine),
            limits=limits,
            latency=prior_latency,
            stalled_after_s=stalled_after_s,
            name="embed",
            observer=metrics,
        )
        metrics.watch(self._dispatcher)

    @property
    def identity(self) -> Identity:
        """Identity of the model."""
        model = self._model
        return Identity(
            id=model.id,
            revision=model.revision,
            dtype=self.engine.dtype,
            dimension=self._dimension,
            outputs=self.engine.outputs,
            shorter=model.shorter,
            prompts={
                Kind.UNSTATED: model.default_prompt,
                Kind.QUERY: model.query_prompt,
                Kind.PASSAGE: model.passage_prompt,
            },
        )

    @property
    def tokenizer(self) -> TokenizerFile | None:
        """The model's own tokenizer; None for an engine that counts tokens otherwise."""
        if not isinstance(self._tokenizers, ModelTokenizing):
            return None
        tokenizers = self._tokenizers.tokenizers
        prompt = tokenizers.count(self._model.passage_prompt)
        room = self._model.max_tokens - tokenizers.special_tokens - prompt
        return TokenizerFile(self._model.path / "tokenizer.json", room)

    @property
    def limits(self) -> dict[str, int]:
        """The limits as `ServiceInfo.limits` shows them."""
        return {
            "max_text_tokens": self._model.max_tokens,
            "max_batch_tokens": self._limits.batch_tokens,
            "max_batch_texts": self._limits.batch_items,
            "max_waiting_texts": self._limits.waiting_items,
            "streams": len(self.engine.streams),
        }

    async def start(self, *, deadline: Deadline) -> None:
        """Run every stream on short and long input, and measure the dimension.

        No caller then pays for a first run, and the scheduler knows the speed.
        """
        room = self._limits.waiting_items
        each = min(len(self.engine.streams), room)
        full = min(each * self._limits.batch_items, room)
        most = 2 * self._model.max_tokens
        # Twice, because the first time is slow for each width; then as questions come.
        rounds = [(words, each) for words in (1, 8, 32, most, 1, 8, 32)] + 4 * [(8, full)]
        try:
            for lane in Lane:
                for words, texts in rounds:
                    await self._run_first("warm " * words, texts, lane, deadline)
        except DeadlineExceeded:
            raise Unavailable(
                f"The first runs of {self._model.id} did not end in time; the longest text has "
                f"{self._model.max_tokens} tokens. Read less of a text "
                "(RAGLAN_EMBEDDER_MAX_TOKENS), or take a faster device, precision or model."
            ) from None

    async def _run_first(self, text: str, texts: int, lane: Lane, deadline: Deadline) -> None:
        prepared = await self.prepare([text] * texts, lane)
        (first, *_), _ = await self._dispatcher.run(
            [EncodeItem(each.content) for each in prepared],
            [each.tokens for each in prepared],
            deadline=deadline,
            lane=lane,
        )
        if first.dense is not None:
            # Modules behind the transformer may change it.
            self._dimension = len(first.dense)

    def check(self, count: int, *, deadline: Deadline, lane: Lane) -> None:
        """Refuse `count` texts now that could not be admitted. Raises what `submit` raises."""
        self._dispatcher.check(count, deadline=deadline, lane=lane)

    async def prepare(
        self, texts: Sequence[str], lane: Lane, *, start: int = 0
    ) -> Sequence[PreparedText]:
        """Token ids of `texts`, cut at the end; their number is what the queue counts."""
        started = time.monotonic()
        prepared: list[PreparedText] = []
        if lane is Lane.INTERACTIVE and sum(map(len, texts)) <= INLINE_CHARS:
            prepared += self._tokenizers.read(texts, start=start)
        else:
            loop = asyncio.get_running_loop()
            for part in slices(texts):
                read = partial(self._tokenizers.read, part, start=start)
                prepared += await loop.run_in_executor(self._tokenizing[lane], read)
        self._metrics.tokenized(lane, time.monotonic() - started)
        return prepared

    def submit(
        self, prepared: Sequence[PreparedText], outputs: Outputs, *, deadline: Deadline, lane: Lane
    ) -> Futures:
        """Queue texts, all of them or none; see `Dispatcher.submit`."""
        return self._dispatcher.submit(
            [EncodeItem(each.content, outputs) for each in prepared],
            [each.tokens for each in prepared],
            deadline=deadline,
            lane=lane,
        )

    def health(self) -> Health:
        """By forward progress."""
        return self._dispatcher.health()

    async def close(self) -> None:
        """Fail what waits and stop the threads."""
        await self._dispatcher.close()
        await asyncio.to_thread(self.engine.close)
        for executor in self._tokenizing.values():
            executor.shutdown(wait=False, cancel_futures=True)


def slices(texts: Sequence[str], chars: int = SLICE_CHARS) -> Iterator[Sequence[str]]:
    """`texts` in their order, as many at a time as hold `chars`; one at least."""
    first = size = 0
    for at, text in enumerate(texts):
        if size + len(text) > chars and at > first:
            yield texts[first:at]
            first, size = at, 0
        size += len(text)
    yield texts[first:]


def pools(engine: Engine) -> list[Pool[EncodeItem, TextVectors]]:
    """One pool for each lane where the engine has streams for it, else one for both."""
    streams, bulk_streams = (
        [_checking(stream) for stream in each] for each in (engine.streams, engine.bulk_streams)
    )
    if not bulk_streams:
        return [Pool(streams)]
    return [
        Pool(streams, frozenset({Lane.INTERACTIVE})),
        Pool(bulk_streams, frozenset({Lane.BULK})),
    ]


def _checking(stream: EmbedBatch) -> Stream[EncodeItem, TextVectors]:
    """`stream`, with an error in place of vectors that cannot be used."""
    return lambda batch: [checked(each) for each in stream(batch)]


def prior_latency() -> LatencyModel:
    """Believed until measured: a third of the speed of one core with MiniLM."""
    return LatencyModel(seconds_per_token=1 / 2_000, overhead_s=0.002)


def batch_limits(
    engine: Engine, *, tokens: int, texts: int, waiting: int, bulk_share: float, margin_s: float
) -> Limits:
    """Limits of a device batch; 0 for `tokens` or `texts` selects what suits the device."""
    on_cpu = not engine.device.startswith("cuda")
    return Limits(
        batch_tokens=tokens or (512 if on_cpu else 16_384),
        batch_items=texts or (8 if on_cpu else 256),
        waiting_items=waiting,
        padded=sessions.padded,
        window=64 if on_cpu else 1_024,
        bulk_share=bulk_share,
        margin_s=margin_s,
    )
