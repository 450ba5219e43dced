"""Everything that can go wrong, as the caller should see it.

RaglanError
├── InvalidInput         the request can never succeed as it is
├── PayloadTooLarge      likewise, for its size
├── NotFound
├── Unauthenticated      the caller has to send a valid key
├── Forbidden            the caller may not do this
├── Conflict             it exists already, or its state does not allow this
├── StorageFull          no space for what is to be written; reading works
├── Overloaded           try again after `retry_after_s`
├── Unavailable          a dependency is down; another replica or a later try may work
├── DeadlineExceeded     the time ran out, here or downstream
├── Cancelled            the caller left
└── Internal             our fault; the request id leads to the log

Foreign exceptions become one of these at the adapter that meets them. `TABLE` is the only
place that knows what each is called on the wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

MAX_MESSAGE_BYTES: Final = 2_000
"""gRPC carries a message in a header, where a byte that is not ASCII takes three, and refuses more
than 8 KB of headers: the call would fail with the refusal's status instead of its own."""


def bounded(message: str) -> str:
    """`message`, cut where it is longer than `MAX_MESSAGE_BYTES` as UTF-8."""
    data = message.encode(errors="replace")
    if len(data) <= MAX_MESSAGE_BYTES:
        return message
    return data[: MAX_MESSAGE_BYTES - 3].decode(errors="ignore") + "..."


class RaglanError(Exception):
    """An error whose message may be shown to the sender of the request."""

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, is_final: bool = False
    ) -> None:
        self.message = bounded(message)
        super().__init__(self.message)
        self.retry_after_s = retry_after_s
        """Seconds until a retry makes sense; None where that is unknown or never."""
        self.stage = ""
        """The stage of a query that it came from; "" elsewhere."""
        self.cause = ""
        """A dependency's own error text, for the log and the trace; it never reaches the caller."""
        self.is_final = is_final
        """True if every replica would fail alike, because all depend on what failed."""


class InvalidInput(RaglanError):
    """The request can never succeed as it is."""


class PayloadTooLarge(InvalidInput):
    """The request is larger than a limit; the message names both."""


class NotFound(RaglanError):
    """The named resource does not exist."""


class Unauthenticated(RaglanError):
    """The request has no valid key; the message says what is wrong with it."""


class Forbidden(RaglanError):
    """The caller may not do this; the message names the setting that allows it."""


class Conflict(RaglanError):
    """It exists already, or its present state does not allow this."""


class StorageFull(RaglanError):
    """There is no space for what is to be written."""


class Overloaded(RaglanError):
    """The work would outlast its deadline, or a queue is full."""


class Unavailable(RaglanError):
    """A dependency is down."""


class DeadlineExceeded(RaglanError):
    """The time ran out."""


class Cancelled(RaglanError):
    """The caller left before the answer."""


class NotSupported(RaglanError):
    """The service, of an earlier version perhaps, has no such call."""


class Internal(RaglanError):
    """Our fault. The message never carries details of the cause."""


@dataclass(frozen=True, slots=True)
class Wire:
    """The external form of an error class: HTTP status, gRPC code and type."""

    type: str
    status: str
    """The name of the gRPC status: a name, so that code without transport needs no grpc."""

    http: int
    retryable: bool


TABLE: Final[Mapping[type[RaglanError], Wire]] = {
    InvalidInput: Wire("invalid_input", "INVALID_ARGUMENT", 422, False),
    PayloadTooLarge: Wire("payload_too_large", "OUT_OF_RANGE", 413, False),
    NotFound: Wire("not_found", "NOT_FOUND", 404, False),
    Unauthenticated: Wire("unauthenticated", "UNAUTHENTICATED", 401, False),
    Forbidden: Wire("forbidden", "PERMISSION_DENIED", 403, False),
    Conflict: Wire("conflict", "FAILED_PRECONDITION", 409, False),
    StorageFull: Wire("storage_full", "RESOURCE_EXHAUSTED", 507, False),
    Overloaded: Wire("overloaded", "RESOURCE_EXHAUSTED", 429, True),
    Unavailable: Wire("unavailable", "UNAVAILABLE", 503, True),
    DeadlineExceeded: Wire("deadline_exceeded", "DEADLINE_EXCEEDED", 504, True),
    Cancelled: Wire("cancelled", "CANCELLED", 499, False),
    NotSupported: Wire("not_supported", "UNIMPLEMENTED", 501, False),
    Internal: Wire("internal", "INTERNAL", 500, False),
}

REFUSALS: Final = (InvalidInput, NotFound, Unauthenticated, Forbidden, Conflict, NotSupported)
"""Errors of a request that changed nothing."""

RETRY_AFTER_METADATA: Final = "raglan-retry-after-ms"
"""Trailing metadata that carries `retry_after_s`, in milliseconds."""

SAID_METADATA: Final = "raglan-said"
"""Trailing metadata that marks a message as ours, rather than the transport's: its `Wire.type`."""

FINAL_METADATA: Final = "raglan-final"
"""Trailing metadata that carries `is_final`: the call is not retried."""

_BY_TYPE: Final = {(wire.status, wire.type): error for error, wire in TABLE.items()}
_BY_STATUS: Final = {wire.status: error for error, wire in TABLE.items()} | {
    "ALREADY_EXISTS": Conflict,
    "ABORTED": Conflict,
}


def wire(error: RaglanError) -> Wire:
    """The row of `TABLE` for `error` or its nearest ancestor."""
    return next(TABLE[cls] for cls in type(error).__mro__ if cls in TABLE)


def from_status(
    status: str, message: str, *, said: str = "", retry_after_s: float | None = None
) -> RaglanError:
    """The error that `status` stands for; what the table does not hold is Internal.

    Args:
        status: name of the gRPC status.
        message: text of the error.
        said: `Wire.type`, which distinguishes errors of the same status.
        retry_after_s: delay before a retry, in seconds.
    """
    error = _BY_TYPE.get((status, said)) or _BY_STATUS.get(status, Internal)
    return error(message, retry_after_s=retry_after_s)


def envelope(error: RaglanError, request_id: str) -> dict[str, object]:
    """The body of every REST error: `{"error": {type, code, message, request_id, retryable}}`."""
    return {"error": problem(error, request_id)}


def problem(error: RaglanError, request_id: str) -> dict[str, object]:
    """Build the error envelope, also the data of a stream's `error` event."""
    row = wire(error)
    return {
        "type": row.type,
        "code": row.status,
        "message": error.message,
        "request_id": request_id,
        "retryable": row.retryable,
    }
