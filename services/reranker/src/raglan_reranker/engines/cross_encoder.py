"""Engine `cross-encoder`: query and passage read together by a sentence-transformers cross-encoder.

On torch, which this module imports: it is loaded for this engine alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from raglan.deadline import Deadline
from raglan.encoders.queue import BatchLimits, BatchQueue, Lane, Timing
from raglan.encoders.sessions import Precision
from raglan.errors import InvalidInput, Unavailable
from sentence_transformers import CrossEncoder

from raglan_reranker.engines import Prepared

Pair = tuple[str, str]

_DTYPES: Final = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


class CrossEncoding:
    """One cross-encoder behind a queue, on one stream that has the whole device."""

    name = "cross-encoder"
    dimension = 0

    def __init__(
        self,
        folder: Path,
        *,
        device: str,
        precision: Precision,
        limits: BatchLimits,
        max_waiting: int,
    ) -> None:
        """Load it. Blocks for seconds.

        Args:
            device: a torch device that exists: "cpu" or "cuda:0".

        Raises:
            InvalidInput: it gives several scores a pair, so that none is the relevance.
            Unavailable: the files cannot be loaded.
        """
        self.device = device
        best = "f32" if device == "cpu" else "f16"
        self.dtype: str = best if precision == "auto" else precision
        try:
            self._model = CrossEncoder(
                str(folder),
                device=self.device,
                local_files_only=True,
                model_kwargs={"dtype": _DTYPES[self.dtype]},
            ).eval()
        except (OSError, ValueError, KeyError) as error:
            raise Unavailable(f"The cross-encoder in {folder} cannot be loaded: {error}") from error
        if self._model.num_labels != 1:
            raise InvalidInput(
                f"The model in {folder} gives {self._model.num_labels} scores a pair; "
                "a reranker needs one (num_labels=1)."
            )
        self._queue: BatchQueue[Pair, float] = BatchQueue(
            [self._predict], limits=limits, max_waiting=max_waiting, name="rerank"
        )

    def prepare(self, query: str, passages: Sequence[str]) -> Prepared:
        """Pairs, and the tokens each takes as the model will cut it."""
        pairs = [(query, passage) for passage in passages]
        encoded = self._model.tokenizer(
            [query] * len(passages),
            list(passages),
            truncation=True,
            max_length=self._model.max_seq_length,
        )
        return Prepared(query, pairs, 0, [len(ids) for ids in encoded["input_ids"]])

    async def score(
        self, prepared: Prepared, count: int, *, deadline: Deadline
    ) -> tuple[NDArray[np.float64], Timing]:
        """The model's scores, after its own activation."""
        with self._queue.admitted(count):
            scores, timing = await self._queue.run(
                prepared.passages[:count],
                prepared.passage_tokens[:count],
                deadline=deadline,
                lane=Lane.INTERACTIVE,
            )
        return np.array(scores, np.float64), timing

    async def close(self) -> None:
        """Stop the device thread."""
        await self._queue.close()

    def _predict(self, pairs: Sequence[Pair]) -> Iterable[float]:
        scores = self._model.predict(
            list(pairs), batch_size=len(pairs), show_progress_bar=False, convert_to_numpy=True
        )
        return [float(score) for score in scores]
