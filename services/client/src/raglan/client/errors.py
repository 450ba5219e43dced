"""Errors of calls.

RaglanError
├── ConnectionFailed     nothing answers, or the connection broke
├── DeadlineExceeded     the time of the call is over, here or in the gateway
├── ProtocolError        the reply is not one of a Raglan gateway
├── JobFailed            a job that was awaited failed or was cancelled
└── Refused              the gateway answered with an error
    ├── InvalidRequest   400, 405, 413, 415, 422, 431: it can never succeed as it is
    ├── Unauthorized     401: no key, or one that is not valid
    ├── Forbidden        403: the key does not allow this
    ├── NotFound         404
    ├── Conflict         409: it contradicts what exists
    ├── RateLimited      429: try again after `retry_after_s`
    ├── Unavailable      503: a service is down or starting
    ├── GatewayTimeout   408, 504: a DeadlineExceeded too
    └── ServerError      500, 501, 507
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

from raglan.client.models import Job


class RaglanError(Exception):
    """Root of the errors of this package."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConnectionFailed(RaglanError):
    """Nothing answers, or the connection broke."""

    def __init__(self, message: str, *, reached: bool) -> None:
        super().__init__(message)
        self.reached = reached
        """True if the gateway may have received the request."""


class DeadlineExceeded(RaglanError):
    """The time of the call is over."""


class ProtocolError(RaglanError):
    """The reply is not one of a Raglan gateway."""


class JobFailed(RaglanError):
    """A job failed as a whole, or was cancelled."""

    def __init__(self, job: Job) -> None:
        reason = job.errors[0].message if job.errors else "without a reason"
        super().__init__(f"Job {job.id} is {job.status}: {reason}")
        self.job = job


class Refused(RaglanError):
    """The gateway answered with an error."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        envelope: Mapping[str, Any] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status."""
        self.envelope = envelope
        """Body of the reply; None where it had another form."""
        problem = envelope["error"] if envelope else {}
        self.type = str(problem.get("type", ""))
        """Machine-readable kind, such as `not_found`."""
        self.code = str(problem.get("code", ""))
        """Name of the gRPC status, such as `NOT_FOUND`."""
        self.request_id = str(problem.get("request_id", ""))
        """Id of the request in the gateway's log."""
        self.retryable = bool(problem.get("retryable", status in (429, 503)))
        """True if the same request may succeed later."""
        self.retry_after_s = retry_after_s
        """Seconds after which to try again, where the gateway says so."""


class InvalidRequest(Refused):
    """The request can never succeed as it is."""


class Unauthorized(Refused):
    """There is no key, or it is not valid."""


class Forbidden(Refused):
    """The key does not allow this."""


class NotFound(Refused):
    """There is no such object as the request names."""


class Conflict(Refused):
    """The request contradicts what exists."""


class RateLimited(Refused):
    """A limit is used up; see `retry_after_s`."""


class Unavailable(Refused):
    """A service is down or starting."""


class GatewayTimeout(Refused, DeadlineExceeded):
    """The time of the request was over in the gateway, or its body arrived too slowly."""


class ServerError(Refused):
    """An error of the gateway, or a call that it does not support."""


_BY_STATUS: Final[Mapping[int, type[Refused]]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: InvalidRequest,
    408: GatewayTimeout,
    409: Conflict,
    413: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
    429: RateLimited,
    431: InvalidRequest,
    503: Unavailable,
    504: GatewayTimeout,
}
_BY_TYPE: Final = {
    "invalid_input": 422,
    "payload_too_large": 413,
    "not_found": 404,
    "forbidden": 403,
    "conflict": 409,
    "overloaded": 429,
    "unavailable": 503,
    "deadline_exceeded": 504,
    "not_supported": 501,
    "storage_full": 507,
}
"""Statuses of errors inside a stream, whose reply had begun with 200."""


def from_reply(status: int, body: Any, url: str, retry_after: str | None) -> Refused:
    """Build the error of a reply.

    Args:
        status: HTTP status.
        body: JSON of the reply, or anything else.
        url: the request's, for a reply that is no gateway's.
        retry_after: the header `Retry-After`.
    """
    problem = body.get("error") if isinstance(body, dict) else None
    if not isinstance(problem, dict) or not isinstance(problem.get("message"), str):
        body, message = None, f"{url} answered with HTTP status {status}."
    else:
        message = problem["message"]
    kind = _BY_STATUS.get(status, ServerError)
    return kind(message, status=status, envelope=body, retry_after_s=seconds(retry_after))


def from_event(problem: Mapping[str, Any]) -> Refused:
    """Build the error of a stream's `error` event."""
    status = _BY_TYPE.get(str(problem.get("type")), 500)
    return from_reply(status, {"error": dict(problem)}, "The stream", None)


def seconds(retry_after: str | None) -> float | None:
    """`Retry-After`, seconds or a date (RFC 9110, 10.2.3), as seconds; None if unreadable."""
    if not retry_after:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None
