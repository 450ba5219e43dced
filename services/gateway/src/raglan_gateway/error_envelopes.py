"""Bodies of errors, in the form of the API that the request spoke, which its path tells."""

from __future__ import annotations

from typing import Any, Final

from raglan import errors
from raglan.errors import InvalidInput, NotFound, RaglanError

_OPENAI: Final = (
    *("/v1/assistants", "/v1/audio", "/v1/batches", "/v1/chat", "/v1/chatkit", "/v1/completions"),
    *("/v1/containers", "/v1/conversations", "/v1/edits", "/v1/embeddings", "/v1/engines"),
    *("/v1/evals", "/v1/files", "/v1/fine_tuning", "/v1/images", "/v1/models", "/v1/moderations"),
    *("/v1/organization", "/v1/realtime", "/v1/responses", "/v1/threads", "/v1/uploads"),
    *("/v1/vector_stores", "/v1/videos"),
)
"""Resources of OpenAI's API, also those that we lack: its clients read no other refusal."""
_RERANK: Final = ("/v1/rerank", "/v2/rerank")

_TYPES: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES: Final = {
    400: "invalid_value",
    401: "invalid_api_key",
    404: "not_found",
    413: "request_too_large",
    429: "rate_limit_exceeded",
    504: "timeout",
}


class InvalidParameter(InvalidInput):
    """One field of a request is wrong.

    Args:
        message: names the value, the limit and the way out.
        param: path of the field in the body, such as `messages[0].content`.
        code: name of the reason for programs.
    """

    def __init__(self, message: str, *, param: str, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class UnknownModel(NotFound):
    """The request names a model that is not served."""

    param: Final = "model"
    code: Final = "model_not_found"


def is_openai(path: str) -> bool:
    """Return whether `path` belongs to OpenAI's API."""
    return any(path == each or path.startswith(f"{each}/") for each in _OPENAI)


def is_foreign(path: str) -> bool:
    """Return whether `path` belongs to an API that clients brought along."""
    return is_openai(path) or path in _RERANK


def body(
    error: RaglanError, *, path: str, status: int, request_id: str, param: str | None = None
) -> dict[str, Any]:
    """Build the body of the reply to a request of `path`.

    Args:
        error: mapped by `raglan.errors`.
        path: of the request; empty where it is unknown.
        status: HTTP status of the reply.
        request_id: of the request.
        param: path of the field at fault, where the error itself does not tell.
    """
    if is_openai(path):
        return {"error": openai_problem(error, status, param)}
    if path in _RERANK:  # Cohere's clients read `message`, Jina's `detail`
        return {"id": request_id, "message": error.message, "detail": error.message}
    return errors.envelope(error, request_id)


def late_problem(error: RaglanError) -> dict[str, str | None]:
    """Build OpenAI's error for the middle of a stream, whose status has been sent."""
    status = errors.wire(error).http
    return openai_problem(error, 400 if status == 422 else status)


def openai_problem(
    error: RaglanError, status: int, param: str | None = None
) -> dict[str, str | None]:
    """Build OpenAI's error object, also the data of a stream's error."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {
        "message": error.message,
        "type": _TYPES.get(status, kind),
        "param": getattr(error, "param", param),
        "code": getattr(error, "code", _CODES.get(status)),
    }
