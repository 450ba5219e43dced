"""Handlers that give every error of the application its envelope."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from raglan import errors
from raglan.errors import InvalidInput, NotFound, RaglanError
from raglan.identifiers import shortened
from raglan.telemetry import tracing
from starlette.exceptions import HTTPException

from raglan_gateway import error_envelopes
from raglan_gateway.error_reply import reply

_SHOWN_CHARS: Final = 100
_SENTENCE_CHARS: Final = 500
_SHOWN_PROBLEMS: Final = 5


def install_error_handlers(app: FastAPI) -> None:
    """Make every error of `app` leave in the envelope."""

    async def raglan_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RaglanError)
        if errors.wire(error).http >= 499:
            tracing.fail(tracing.current(), error)
        return reply(error, path=request.url.path)

    async def validation(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        problems = error.errors()[:_SHOWN_PROBLEMS]
        if any(problem["loc"] == ("body",) for problem in problems) and not _is_json(request):
            given = request.headers.get("content-type", "")
            sentence = f"The content type is {shortened(given)}; send application/json."
            return reply(InvalidInput(sentence), status=415, path=request.url.path)
        if error_envelopes.is_foreign(path := request.url.path):
            first = problems[0]
            return reply(
                InvalidInput(problem_text(first)), status=400, path=path, param=_field(first)
            )
        return reply(InvalidInput(" ".join(map(problem_text, problems))))

    async def http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        sentence = f"{error.detail[:_SENTENCE_CHARS].removesuffix('.')}."
        known = {
            404: NotFound("There is no such route."),
            405: InvalidInput(
                f"{request.method[:_SHOWN_CHARS]} is not allowed here; "
                f"the route takes {headers.get('Allow', 'other methods')}."
            ),
        }
        mapped = known.get(error.status_code, InvalidInput(sentence))
        return reply(mapped, status=error.status_code, headers=headers, path=request.url.path)

    app.add_exception_handler(RaglanError, raglan_error)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, http_error)


def _is_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _field(problem: Any) -> str | None:
    """Return the path of the field that a problem is about, such as `messages[0].content`."""
    if problem["type"] == "json_invalid":
        return None
    parts = problem["loc"][1:]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return path[:_SHOWN_CHARS].removeprefix(".") or None


def problem_text(problem: Any) -> str:
    """Say what is wrong with a body: a problem as pydantic describes it."""
    if problem["type"] == "json_invalid":
        return (
            f"The body is not JSON: {problem['ctx']['error']}, at character {problem['loc'][-1]}."
        )
    where = ".".join(str(part) for part in problem["loc"][1:])[:_SHOWN_CHARS] or "the body"
    message = problem["msg"].removeprefix("Value error, ")
    given = problem.get("input")
    shown = f" (got {given!r:.{_SHOWN_CHARS}})" if isinstance(given, str | int | float) else ""
    return f"{where}: {message}{shown}."
