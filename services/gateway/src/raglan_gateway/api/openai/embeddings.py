"""`POST /v1/embeddings`: the embedder in the form of OpenAI's API."""

from __future__ import annotations

import base64
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray
from pydantic import Field, JsonValue, TypeAdapter, ValidationError
from raglan import tensors
from raglan.deadline import Deadline
from raglan.errors import InvalidInput
from raglan.identifiers import shortened
from raglan.v1 import common_pb2, embedder_pb2

from raglan_gateway.api.openai import documented, models
from raglan_gateway.api.openai.lenient import Lenient
from raglan_gateway.api.text import NonBlankText
from raglan_gateway.error_envelopes import InvalidParameter, UnknownModel
from raglan_gateway.mesh import Mesh
from raglan_gateway.settings import GatewaySettings

MAX_TEXTS: Final = 2_048
"""As OpenAI's."""
_TEXTS_A_CALL: Final = 64
_INTERACTIVE: Final = 8
"""Texts that wait beside queries; more go beside documents."""
_TEXT: Final = TypeAdapter(NonBlankText)
_KINDS: Final = {
    "query": embedder_pb2.INPUT_KIND_QUERY,
    "search_query": embedder_pb2.INPUT_KIND_QUERY,
}

_MAX_DIMENSIONS: Final = 65_536
_INPUT: Final[JsonValue] = [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
"""Inputs that `texts_of` takes. It checks by hand, to name the element and the way out."""


class EmbeddingRequest(Lenient):
    """The body of a request for vectors."""

    accepted: ClassVar = frozenset({"user"})

    model: str
    input: Annotated[Any, Field(json_schema_extra={"anyOf": _INPUT})]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    input_type: str | None = None
    """"query" or "passage" (the default), for models that tell them apart."""


def router(mesh: Mesh, settings: GatewaySettings) -> APIRouter:
    """The route of embeddings."""
    routes = documented.router()

    @routes.post("/v1/embeddings", **documented.returns(documented.EmbeddedTexts))
    async def create_embeddings(body: EmbeddingRequest) -> dict[str, Any]:
        """Embed texts."""
        body.check_unknown()
        texts = texts_of(body.input)
        if body.dimensions is not None and not 1 <= body.dimensions <= _MAX_DIMENSIONS:
            raise InvalidParameter(
                f"dimensions is {body.dimensions}; it is 1 to {_MAX_DIMENSIONS}.",
                param="dimensions",
            )
        deadline = Deadline.after(settings.default_timeout_ms / 1e3)
        deadline.adopt()
        await check_served(mesh, "embedder", body.model, deadline)
        vectors, tokens = await _embedded(mesh, texts, body, deadline)
        as_text = body.encoding_format == "base64"
        return {
            "object": "list",
            "model": body.model,
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": _base64(row) if as_text else row.tolist(),
                }
                for index, row in enumerate(vectors)
            ],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    return routes


async def check_served(mesh: Mesh, service: str, model: str, deadline: Deadline) -> None:
    """Check the name of a model: `raglan`, or that of the one that `service` serves.

    Raises:
        UnknownModel: it is neither.
    """
    if model == models.DEFAULT:
        return
    info: common_pb2.ServiceInfo = await mesh.pools[service].call(
        "GetInfo", common_pb2.GetInfoRequest(), deadline=deadline
    )
    if model not in (info.model.id, info.model.id.rpartition("/")[2]):
        raise UnknownModel(
            f"There is no model {shortened(model)}; the {service} serves {info.model.id!r}, "
            f"which is also called {models.DEFAULT!r}."
        )


def texts_of(value: Any) -> list[str]:
    """Return the texts of `input`.

    Raises:
        InvalidParameter: something else, or too many of them.
    """
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts:
        raise InvalidParameter("input is a text, or a list of texts, not empty.", param="input")
    if len(texts) > MAX_TEXTS:
        raise InvalidParameter(
            f"input has {len(texts)} texts; the limit is {MAX_TEXTS}.", param="input"
        )
    for number, text in enumerate(texts):
        where = "input" if isinstance(value, str) else f"input[{number}]"
        if isinstance(text, int | list):
            raise InvalidParameter(
                f"{where} is token ids; send text, because the model has a tokenizer of its own "
                "(LangChain: check_embedding_ctx_length=False).",
                param=where,
                code="unsupported_value",
            )
        try:
            _TEXT.validate_python(text, strict=True)
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise InvalidParameter(f"{where}: {message}.", param=where) from None
    return texts


async def _embedded(
    mesh: Mesh, texts: list[str], body: EmbeddingRequest, deadline: Deadline
) -> tuple[NDArray[np.float32], int]:
    """Return vectors of shape (len(texts), dim), and the tokens that were read."""
    lane = common_pb2.LANE_INTERACTIVE if len(texts) <= _INTERACTIVE else common_pb2.LANE_BULK
    rows, tokens = [], 0
    for begin in range(0, len(texts), _TEXTS_A_CALL):
        request = embedder_pb2.EmbedRequest(
            texts=texts[begin : begin + _TEXTS_A_CALL],
            kind=_KINDS.get(body.input_type or "", embedder_pb2.INPUT_KIND_PASSAGE),
            lane=lane,
            dimension=body.dimensions or 0,
        )
        try:
            reply: embedder_pb2.EmbedResponse = await mesh.embedder.call(
                "Embed", request, deadline=deadline
            )
        except InvalidInput as error:
            if body.dimensions is None:
                raise
            raise InvalidParameter(error.message, param="dimensions") from None
        rows.append(tensors.unpack(reply.vectors).astype(np.float32, copy=False))
        tokens += sum(reply.token_counts)
    return np.concatenate(rows), tokens


def _base64(row: NDArray[np.float32]) -> str:
    return base64.b64encode(row.astype("<f4", copy=False).tobytes()).decode()
