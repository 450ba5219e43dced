"""Parts that FastAPI leaves out of the OpenAPI document: bodies that a route reads, and events."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from raglan_gateway.api import job_schemas, schemas
from raglan_gateway.api.openai.documented import TAG, OpenAIError, RerankError

_REF: Final = "#/components/schemas/{model}"
_MODELS: Final[tuple[type[BaseModel], ...]] = (
    schemas.NewDocuments,
    schemas.StreamStart,
    schemas.StreamSources,
    schemas.StreamThinking,
    schemas.StreamDelta,
)
_ERRORS: Final = (schemas.ErrorReply, OpenAIError, RerankError)
QUERY_EVENTS: Final[Mapping[str, type[BaseModel] | None]] = {
    "start": schemas.StreamStart,
    "sources": schemas.StreamSources,
    "thinking": schemas.StreamThinking,
    "restart": None,
    "delta": schemas.StreamDelta,
    "citation": schemas.Citation,
    "final": schemas.QueryReply,
    "done": None,
    "error": schemas.Problem,
}
JOB_EVENTS: Final[Mapping[str, type[BaseModel] | None]] = {
    "job": job_schemas.Job,
    "done": None,
    "error": schemas.Problem,
}


def event_stream(events: Mapping[str, type[BaseModel] | None]) -> dict[str, Any]:
    """The content of a reply that is a stream.

    OpenAPI 3.1 has no word for the single event, so `x-event-data` names the schema of the data of
    each; an event without one has `{}`. The schema has no type: some tools check the whole stream
    against it, others each event.
    """
    data = {
        name: {"$ref": _REF.format(model=model.__name__)} if model else {"type": "object"}
        for name, model in events.items()
    }
    shown = ", ".join(f"`{name}`" for name in events)
    description = f"Server-sent events with `id`, `event` and JSON as `data`: {shown}."
    schema = {"description": description, "x-event-data": data}
    return {"text/event-stream": {"schema": schema}}


def _drop_unprocessable(document: dict[str, Any]) -> None:
    """Remove 422, which the whole application declares, from APIs that have 400 for it."""
    for methods in document["paths"].values():
        for operation in methods.values():
            if TAG in operation.get("tags", ()):
                del operation["responses"]["422"]


def _definitions(models: Iterable[type[BaseModel]]) -> dict[str, Any]:
    """Return the schemas of models, and of those that they are made of, by name."""
    modes: Any = [(model, "validation") for model in models]
    _, made = models_json_schema(modes, ref_template=_REF)
    defined: dict[str, Any] = made["$defs"]
    return defined


def install(app: FastAPI) -> None:
    """Complete the document that `app` shows."""
    made = app.openapi

    def completed() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
            held = document["components"]["schemas"] | _definitions(_ERRORS)
            document["components"]["schemas"] = held = dict(sorted(held.items()))
            for name, schema in _definitions(_MODELS).items():
                held.setdefault(name, schema)
            _drop_unprocessable(document)
        assert app.openapi_schema is not None
        return app.openapi_schema

    async def shown(_: Request) -> Response:
        # Made on the first call, which takes half a second.
        return JSONResponse(await asyncio.to_thread(app.openapi))

    app.openapi = completed  # type: ignore[method-assign]
    path = app.openapi_url
    assert path is not None
    others = [route for route in app.router.routes if getattr(route, "path", "") != path]
    app.router.routes[:] = others
    app.add_route(path, shown, include_in_schema=False)
