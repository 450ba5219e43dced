"""Engine `http`: a server that embeds texts itself, so that nothing is tokenised or queued here.

Two forms are spoken: OpenAI's `/embeddings`, which text-embeddings-inference, Infinity, vLLM and
Ollama have too, and the native `/embed` of text-embeddings-inference (TEI).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from raglan.deadline import Deadline
from raglan.encoders.device_use import DeviceUse
from raglan.errors import Internal, InvalidInput
from raglan.health import Health
from raglan.http_client import ModelServer
from raglan.http_errors import RemoteServer

Api = Literal["openai", "tei"]

CALLED: Final = RemoteServer("The embedding server", "RAGLAN_EMBEDDER")

DEFAULT_BATCH_TEXTS: Final = 32
"""Texts a request holds: TEI's default limit."""

_LARGEST: Final = float(np.finfo(np.float32).max)


class HttpEngine:
    """One model of one server. `start` it before the first text; `close` it.

    Args:
        model: the name to ask for, and to be known by; `tei` serves one model and reports its name.
        max_batch_texts: texts a request holds; more are sent as several requests at once.
    """

    name = "http"
    device = "remote"
    dtype = "remote"
    """The server's, where it says."""

    uses: Final[tuple[DeviceUse, ...]] = ()
    """The server's GPUs are not known here."""

    def __init__(
        self,
        server: ModelServer,
        *,
        model: str,
        api: Api = "openai",
        max_batch_texts: int = DEFAULT_BATCH_TEXTS,
    ) -> None:
        self._server = server
        self._api = api
        self.max_batch_texts = max_batch_texts
        # A quarter of the bytes of a list of numbers; not every server knows it.
        self._form: dict[str, str] = {"encoding_format": "base64"}
        self.model_id = model
        self.revision = "remote"
        """The server's, where it says."""

        self._learnt: tuple[str | int, ...] = ()
        self.dimension = 0
        """Learnt by `start`; an answer of any other is refused."""

    async def start(self, *, deadline: Deadline) -> None:
        """Wait until the server is up, and learn the dimension from one text.

        Raises:
            RaglanError: no proper answer until the deadline; the message says why.
        """
        await self._server.until_up(self._learn, deadline=deadline)

    async def embed(self, texts: Sequence[str], *, deadline: Deadline) -> NDArray[np.float32]:
        """Embed `texts`, all of them or none.

        Returns:
            float32 (len(texts), dimension), rows L2-normalised, in the order of `texts`.

        Raises:
            RaglanError: as `ModelServer.post`; Internal also for a vector that is none.
        """
        starts = range(0, len(texts), self.max_batch_texts)
        parts = [
            asyncio.ensure_future(
                self._request(texts[start : start + self.max_batch_texts], deadline)
            )
            for start in starts
        ]
        try:
            vectors = np.concatenate(await asyncio.gather(*parts))
        finally:
            for part in parts:
                part.cancel()
        if vectors.shape[1] != self.dimension:
            raise Internal(
                f"{CALLED.name} now gives {vectors.shape[1]} dimensions; it gave "
                f"{self.dimension} at the start. Restart the embedder if its model was changed."
            )
        return vectors

    def health(self) -> Health:
        """Health of the server."""
        return self._server.health()

    async def close(self) -> None:
        """Close the connections."""
        await self._server.close()

    async def _learn(self, deadline: Deadline) -> None:
        told = (self.model_id, self.revision, self.dtype)
        if self._api == "tei":
            info = await self._server.get("/info", dict, deadline=deadline)
            told = (
                str(info.get("model_id") or self.model_id),
                str(info.get("model_sha") or self.revision)[:12],
                str(info.get("model_dtype") or self.dtype),
            )
        (vector,) = await self._first(deadline)
        learnt = (*told, len(vector))
        if self._learnt and self._learnt != learnt:
            raise Internal(f"{CALLED.name} serves another model now. Restart the embedder.")
        self._learnt = learnt
        self.model_id, self.revision, self.dtype = told
        self.dimension = len(vector)

    async def _first(self, deadline: Deadline) -> NDArray[np.float32]:
        try:
            return await self._request(["dimension"], deadline)
        except InvalidInput:
            if self._api == "tei" or not self._form:
                raise
            self._form = {}
        return await self._request(["dimension"], deadline)

    async def _request(self, texts: Sequence[str], deadline: Deadline) -> NDArray[np.float32]:
        def vectors(answer: Any) -> NDArray[np.float32]:
            rows = answer if self._api == "tei" else _rows(answer)
            return _checked(rows, len(texts))

        if self._api == "tei":
            body: dict[str, Any] = {"inputs": list(texts), "truncate": True}
            return await self._server.post("/embed", body, vectors, deadline=deadline)
        body = {"input": list(texts), "model": self.model_id} | self._form
        return await self._server.post("/embeddings", body, vectors, deadline=deadline)


def _rows(answer: Any) -> list[Any]:
    """The embeddings of an answer in OpenAI's form, in the order of the texts."""
    data = answer["data"]
    indices = [item.get("index", position) for position, item in enumerate(data)]
    if sorted(indices) != list(range(len(data))):
        raise ValueError("its indices are not those of the texts")
    rows: list[Any] = [None] * len(data)
    for index, item in zip(indices, data, strict=True):
        rows[index] = item["embedding"]
    return rows


def _checked(rows: list[Any], count: int) -> NDArray[np.float32]:
    """`rows` as a matrix of `count` unit vectors. Raises ValueError where they are none."""
    if len(rows) != count:
        raise ValueError(f"{len(rows)} vectors for {count} texts")
    try:
        vectors = np.array([_row(row) for row in rows], np.float64)
    except (ValueError, TypeError, binascii.Error):
        raise ValueError("its vectors are not rows of numbers of one length") from None
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise ValueError("its vectors are not rows of numbers")
    # Not a number is not smaller than anything, and so is refused here too.
    if not np.abs(vectors).max() <= _LARGEST:
        raise ValueError("a vector holds a number that is not finite")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not lengths.min() > 1e-12:
        raise ValueError("a vector is zero")
    unit: NDArray[np.float32] = (vectors / lengths).astype(np.float32)
    return unit


def _row(embedding: Any) -> Any:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4")
    return embedding
