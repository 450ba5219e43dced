"""Parts of a call that are the same for both clients: addresses, time, retries, replies."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, TypeVar
from urllib.parse import quote

import httpx
import httpx_sse
from pydantic import ValidationError
from raglan.client import errors, models
from raglan.client.model import Model
from tenacity import RetryCallState, wait_exponential, wait_random

M = TypeVar("M", bound=Model)
DEFAULT_URL: Final = "http://127.0.0.1:8080"
JSON_LINES: Final = "application/x-ndjson"
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
MAX_REPLY_BYTES: Final = 512 * 2**20
"""Largest reply that is read into memory."""
REPLY_S: Final = 1.0
"""Time for the gateway's reply to arrive, its own refusal among others."""
ENDED: Final = frozenset({"succeeded", "partial", "failed", "cancelled"})
"""States in which a job stays."""
FOLLOW_S: Final = 1.0
"""Pause before a job or a source is looked at again."""
UNSYNCED: Final = frozenset({"due", "syncing"})
"""States of a source whose sync has not ended."""
_CONNECT_S: Final = 5.0
_LEAST_TIMEOUT_MS: Final = 100
"""The gateway accepts no less."""
_RECONNECTS: Final = 2
"""Retries where no gateway answers: more would only hide a wrong address."""
_BACKOFF: Final = wait_exponential(multiplier=0.5, max=8) + wait_random(0, 0.5)


def user_agent() -> str:
    """Return the value of the header `User-Agent`."""
    try:
        return f"raglan-client/{version('raglan-client')}"
    except PackageNotFoundError:  # used from a source tree
        return "raglan-client"


def base_url(given: str | None) -> str:
    """`given`, else RAGLAN_URL, else this machine's gateway; without a slash at the end."""
    url = given or os.environ.get("RAGLAN_URL") or DEFAULT_URL
    parts = httpx.URL(url)
    if parts.scheme not in ("http", "https") or not parts.host:
        raise ValueError(f"base_url is {url!r}; write it as http://host:port.")
    return url.rstrip("/")


def headers(api_key: str | None) -> dict[str, str]:
    """Headers of every request; the key is `api_key`, else RAGLAN_API_KEY."""
    key = os.environ.get("RAGLAN_API_KEY", "") if api_key is None else api_key
    key = key.strip()
    if not key:
        return {"User-Agent": user_agent()}
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError("api_key holds a space or a character that no key has.")
    return {"User-Agent": user_agent(), "Authorization": f"Bearer {key}"}


def segment(text: str) -> str:
    """`text` as one segment of a path. Dots alone are escaped as well: URLs resolve `..`."""
    quoted = quote(text, safe="")
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


EVENTS: Final[Mapping[str, type[Model]]] = {
    "start": models.StreamStart,
    "sources": models.StreamSources,
    "thinking": models.StreamThinking,
    "restart": models.StreamRestart,
    "delta": models.StreamDelta,
    "citation": models.Citation,
    "final": models.QueryReply,
}
"""Events of a streamed answer; others, of a later gateway, are skipped."""


@dataclass(slots=True)
class Deadline:
    """The time of one call, its retries included."""

    timeout_s: float
    end: float = field(init=False)

    def __post_init__(self) -> None:
        if self.timeout_s <= 0:
            raise ValueError(f"timeout_s is {self.timeout_s:g}; it is above 0.")
        self.end = time.monotonic() + self.timeout_s

    @property
    def left_s(self) -> float:
        """Seconds left."""
        return self.end - time.monotonic()

    def check(self) -> float:
        """Return the seconds left, or raise DeadlineExceeded."""
        if (left := self.left_s) <= 0:
            raise errors.DeadlineExceeded(f"The call took longer than {self.timeout_s:g} s.")
        return left


@dataclass(slots=True)
class RetryPolicy:
    """Decides for tenacity whether and when a call is tried again."""

    deadline: Deadline
    max_retries: int
    idempotent: bool

    def retries(self, error: BaseException) -> bool:
        """Return whether `error` may be followed by a success, and a repetition harms nothing."""
        match error:
            case errors.RateLimited() | errors.Unavailable():
                return self.idempotent
            case errors.ConnectionFailed():
                return self.idempotent or not error.reached
            case _:
                return False

    def wait(self, state: RetryCallState) -> float:
        """Seconds before the next attempt: what the gateway asks for, else a random backoff."""
        failed = state.outcome.exception() if state.outcome else None
        asked = failed.retry_after_s if isinstance(failed, errors.Refused) else None
        # 0 would repeat the request at once, as often as it is refused.
        return asked or float(_BACKOFF(state))

    def stop(self, state: RetryCallState) -> bool:
        """Return whether the last attempt was made, or the wait outlasts the deadline."""
        failed = state.outcome.exception() if state.outcome else None
        most = self.max_retries
        if isinstance(failed, errors.ConnectionFailed):
            most = min(most, _RECONNECTS)
        return state.attempt_number > most or state.upcoming_sleep >= self.deadline.left_s


@contextmanager
def translated(url: str) -> Generator[None, None, None]:
    """The one table from foreign exceptions to ours."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise errors.ConnectionFailed(f"No gateway answers at {url}.", reached=False) from error
    except httpx.PoolTimeout as error:
        raise errors.ConnectionFailed(
            f"All connections to {url} are in use.", reached=False
        ) from error
    except httpx.TimeoutException as error:
        raise errors.DeadlineExceeded(f"The gateway at {url} gave no answer in time.") from error
    except (httpx.RemoteProtocolError, httpx.NetworkError) as error:
        raise errors.ConnectionFailed(
            f"The gateway at {url} broke off; it may have ended.", reached=True
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise errors.ProtocolError(f"Talking to {url} failed: {error}") from error
    except (httpx_sse.SSEError, ValueError) as error:  # not JSON, not of the model's form
        raise errors.ProtocolError(f"What answers at {url} is not a Raglan gateway.") from error


def parsed(response: httpx.Response, content: bytes) -> Any:
    """The JSON of a reply, a list for JSON lines, None for an empty one; or its error."""
    if response.is_success:
        if response.headers.get("Content-Type", "").startswith(JSON_LINES):
            return [json.loads(line) for line in content.splitlines()]
        return json.loads(content) if content else None
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    raise errors.from_reply(
        response.status_code, body, str(response.request.url), response.headers.get("Retry-After")
    )


def given(**values: Any) -> dict[str, Any]:
    """`values` without those that are None: the gateway's defaults hold for them."""
    return {name: value for name, value in values.items() if value is not None}


def query_body(
    query: str, timeout_s: float | None, extra_body: Mapping[str, Any] | None, **fields: Any
) -> dict[str, Any]:
    """Body of a query or a search; the gateway gets the caller's time as its own."""
    timeout_ms = None if timeout_s is None else round(timeout_s * 1000)
    return {"query": query, **given(timeout_ms=timeout_ms, **fields), **(extra_body or {})}


def query_deadline(timeout_s: float | None, default_s: float) -> Deadline:
    """The deadline of a query: the gateway's, and the time of its reply's way."""
    return Deadline(default_s if timeout_s is None else timeout_s + REPLY_S)


def body_within(json: Any, deadline: Deadline) -> Any:
    """`json` with a `timeout_ms` that ends before `deadline`, which earlier attempts used up."""
    left_ms = round((deadline.check() - REPLY_S) * 1000)
    if not isinstance(json, Mapping) or json.get("timeout_ms", 0) <= left_ms:
        return json
    return {**json, "timeout_ms": max(_LEAST_TIMEOUT_MS, left_ms)}


def times(deadline: Deadline, silence_s: float) -> httpx.Timeout:
    """The limits of one attempt."""
    left_s = deadline.check()
    return httpx.Timeout(min(left_s, silence_s), connect=min(left_s, _CONNECT_S))


def read_as(kind: type[M], value: Any) -> M:
    """`value` as an object of `kind`.

    Raises:
        ProtocolError: it is none.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise errors.ProtocolError(
            f"The gateway sent no {kind.__name__}: {where}: {first['msg']}."
        ) from error


def documents_path(collection: str) -> str:
    """The path of the documents of `collection`."""
    return f"/v1/collections/{segment(collection)}/documents"


def succeeded(job: models.Job) -> models.Job:
    """Return `job`, which has ended, or raise JobFailed."""
    if job.status in ("failed", "cancelled"):
        raise errors.JobFailed(job)
    return job
