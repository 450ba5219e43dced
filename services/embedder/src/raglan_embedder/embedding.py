"""Texts to vectors: refuse what cannot succeed, skip what is known, compute the rest once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from raglan import tenancy
from raglan.cache import Cache, digest
from raglan.deadline import Deadline
from raglan.encoders.heads import unit_rows
from raglan.errors import DeadlineExceeded, InvalidInput, PayloadTooLarge
from raglan.scheduling import Answer, Lane, Timing
from raglan.single_flight import SingleFlight, Start
from raglan.telemetry import tracing

from raglan_embedder.outputs import Outputs, TextVectors, check_size, refuse

_ENTRY_BYTES = 300
"""Size of a cache entry besides its vector, in bytes."""


class Kind(Enum):
    """Role of a text, which selects its prompt."""

    UNSTATED = "unstated"
    QUERY = "query"
    PASSAGE = "passage"


@dataclass(frozen=True, slots=True)
class TextLimits:
    """Limits of one call."""

    texts: int
    chars: int
    """Of one text."""

    reply_bytes: int = 16 * 1024 * 1024
    """Of the answer."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Identity of a model. Vectors of different identities are not comparable."""

    id: str
    revision: str
    dtype: str
    dimension: int
    outputs: Outputs
    prompts: dict[Kind, str]
    shorter: tuple[int, ...] = ()
    """Dimensions that a vector may be cut to, where the model names them; else empty."""


@dataclass(frozen=True, slots=True)
class TokenizerFile:
    """The tokenizer of the model, for those who cut texts in its tokens."""

    path: Path
    """A Hugging Face tokenizer.json."""

    max_tokens: int
    """Tokens of one passage that the model reads, without special tokens and prompt."""


@dataclass(frozen=True, slots=True)
class TextFacts:
    """Facts of a text that only a tokenizer knows; None where it is not known."""

    truncated: int | None = None
    """Tokens beyond the model's limit."""

    readability: float | None = None
    """Readability for the model, in [0, 1]; see `raglan.readability`."""


@dataclass(frozen=True, slots=True)
class PreparedText:
    """A text as an encoder takes it."""

    content: Any
    """Token ids, or the text itself for another server."""

    tokens: int = 0
    """Of the text as the model reads it; 0 where only the server knows."""

    facts: TextFacts = TextFacts()


@dataclass(frozen=True, slots=True)
class EmbeddingBatch:
    """Vectors of one call, in the order of its texts."""

    vectors: NDArray[np.float32]
    """Shape (texts, dimension), rows L2-normalised."""

    texts: list[TextVectors]
    """Tokens of each text, and what else was wanted of it."""

    facts: list[TextFacts]
    """Tokenizer facts of each text."""

    tokenize_ns: int
    timing: Timing


class Encoder(Protocol):
    """Makes vectors of texts that were found good: here on a device, or on another server."""

    def check(self, count: int, *, deadline: Deadline, lane: Lane) -> None:
        """Refuse at once what `submit` would refuse."""

    async def prepare(
        self, texts: Sequence[str], lane: Lane, *, start: int
    ) -> Sequence[PreparedText]:
        """Each text as `submit` takes it; its first `start` characters are a prompt."""

    def submit(
        self, prepared: Sequence[PreparedText], outputs: Outputs, *, deadline: Deadline, lane: Lane
    ) -> Sequence[asyncio.Future[Answer[TextVectors]]]:
        """A future for each text, all of them or none."""


class Embedder:
    """The embedding service behind its wire. Bound to one event loop.

    Args:
        cache_bytes: of vectors kept; 0 keeps none.
        looked_up: called with each call's cache hits and misses.
    """

    def __init__(
        self,
        encoder: Encoder,
        identity: Identity,
        *,
        limits: TextLimits,
        cache_bytes: int,
        looked_up: Callable[[int, int], None],
        tokenizer: TokenizerFile | None = None,
    ) -> None:
        self.identity = identity
        self.limits = limits
        self.tokenizer = tokenizer
        self._encoder = encoder
        self._looked_up = looked_up
        self._cache: Cache[TextVectors] = Cache(cache_bytes, _size_of)
        self._facts: Cache[TextFacts] = Cache(cache_bytes // _ENTRY_BYTES)
        self._flights: SingleFlight[Answer[TextVectors]] = SingleFlight(self._keep)

    async def embed(
        self,
        texts: Sequence[str],
        *,
        deadline: Deadline,
        kind: Kind = Kind.UNSTATED,
        lane: Lane = Lane.INTERACTIVE,
        dimension: int = 0,
        outputs: Outputs = Outputs.DENSE,
    ) -> EmbeddingBatch:
        """Embed `texts`, all of them or none.

        Args:
            texts: 1..`limits.texts` texts; what the model cannot take is cut at the end.
            deadline: limit of the call.
            kind: role of the texts, which selects the prompt.
            lane: priority lane.
            dimension: the leading components to keep (Matryoshka), normalised again; 0 keeps all.
            outputs: requested outputs besides the vectors.

        Raises:
            InvalidInput: no text, an empty one, or a limit passed; the message names it.
            Overloaded: no room for all of them, or the work ahead would outlast the deadline.
            DeadlineExceeded: the time ran out before the last vector.
        """
        self._check(texts, dimension, outputs)
        prompt = self.identity.prompts[kind]
        keys = [self._key(prompt, text, outputs) for text in texts]
        found = {at: held for at, key in enumerate(keys) if (held := self._cache.get(key))}
        facts = {at: known for at in found if (known := self._facts.get(keys[at]))}
        found = {at: held for at, held in found.items() if at in facts}
        missing = [at for at in range(len(texts)) if at not in found]
        self._looked_up(len(found), len(missing))
        tracing.looked_up("vectors", len(found), len(missing))
        timing, tokenize_ns = Timing(), 0
        if missing:
            self._encoder.check(len(missing), deadline=deadline, lane=lane)
            started_ns = time.monotonic_ns()
            prepared = await self._encoder.prepare(
                [prompt + texts[at] for at in missing], lane, start=len(prompt)
            )
            tokenize_ns = time.monotonic_ns() - started_ns
            facts |= {at: each.facts for at, each in zip(missing, prepared, strict=True)}
            for at in missing:
                self._facts.put(keys[at], facts[at])
            counts = [each.tokens for each in prepared]
            check_size(outputs, counts, self.identity.dimension, self.limits.reply_bytes)

            def start(positions: list[int]) -> Sequence[asyncio.Future[Answer[TextVectors]]]:
                wanted = [prepared[at] for at in positions]
                return self._encoder.submit(wanted, outputs, deadline=deadline, lane=lane)

            answers = await self._within(deadline, [keys[at] for at in missing], start, lane)
            timing = Timing.over(answers)
            found |= {at: each.result for at, each in zip(missing, answers, strict=True)}
        rows = [found[at] for at in range(len(texts))]
        vectors = np.stack([row.dense for row in rows if row.dense is not None])
        if 0 < dimension < self.identity.dimension:
            vectors = unit_rows(vectors[:, :dimension])
        told = [facts[at] for at in range(len(texts))]
        return EmbeddingBatch(vectors, rows, told, tokenize_ns, timing)

    async def _within(
        self,
        deadline: Deadline,
        keys: Sequence[bytes],
        start: Start[Answer[TextVectors]],
        lane: Lane,
    ) -> list[Answer[TextVectors]]:
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                return await self._flights.get(keys, start, rank=lane)
        except TimeoutError:
            raise DeadlineExceeded("The deadline passed before the model was done.") from None

    def _key(self, prompt: str, text: str, outputs: Outputs) -> bytes:
        model = self.identity
        # The time of a call must not tell a tenant that another one has sent the same text.
        owner = tenancy.current()
        vectors = (model.id, model.revision, model.dtype, str(outputs.value))
        return digest(owner, *vectors, prompt, text)

    def _keep(self, key: bytes, answer: Answer[TextVectors]) -> None:
        vectors = answer.result
        if vectors.sparse is None and vectors.token_vectors is None and vectors.dense is not None:
            # A row of a batch's matrix would keep the whole matrix.
            self._cache.put(key, replace(vectors, dense=vectors.dense.copy()))

    def _check(self, texts: Sequence[str], dimension: int, outputs: Outputs) -> None:
        if not texts:
            raise InvalidInput("texts is empty; give at least one text.")
        if len(texts) > self.limits.texts:
            raise InvalidInput(
                f"texts holds {len(texts)} texts; the limit is {self.limits.texts} a call "
                "(RAGLAN_EMBEDDER_MAX_TEXTS)."
            )
        for number, text in enumerate(texts):
            if not text or text.isspace():
                raise InvalidInput(f"texts[{number}] is empty or white space; nothing to embed.")
            if len(text) > self.limits.chars:
                raise PayloadTooLarge(
                    f"texts[{number}] holds {len(text)} characters; the limit is "
                    f"{self.limits.chars} (RAGLAN_EMBEDDER_MAX_TEXT_CHARS). Split it."
                )
        if dimension > self.identity.dimension:
            raise InvalidInput(
                f"dimension is {dimension}; {self.identity.id} has {self.identity.dimension}."
            )
        allowed = (*self.identity.shorter, self.identity.dimension)
        if self.identity.shorter and dimension and dimension not in allowed:
            raise InvalidInput(
                f"dimension is {dimension}; {self.identity.id} was trained to be cut to "
                f"{', '.join(map(str, allowed))}."
            )
        refuse(outputs, self.identity.outputs, self.identity.id)


def _size_of(vectors: TextVectors) -> float:
    return _ENTRY_BYTES + (0 if vectors.dense is None else vectors.dense.nbytes)
