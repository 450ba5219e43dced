"""The gateway's REST interface, as the commands use it: errors become sentences."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Final, Self
from urllib.parse import quote

import httpx
import httpx_sse
import typer
from raglan import tls_trust
from raglan.errors import InvalidInput
from raglan.identifiers import check_collection_name
from raglan.settings import default_data_dir, read_secret

from raglan_cli import runfile
from raglan_cli.failure import Failure, UsageFailure

KEY_VARIABLE: Final = "RAGLAN_API_KEY"
DEFAULT_URL: Final = "http://127.0.0.1:8080"
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_CONNECT_S: Final = 5.0
_READ_S: Final = 120.0
"""Longer than any deadline the gateway grants, so that its own error arrives first."""

_ATTEMPTS: Final = 6
_LONGEST_WAIT_S: Final = 30.0

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url", envvar="RAGLAN_URL", help="The gateway. Default: the one `raglan up` runs here."
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")
]


def check_name(name: str | None) -> str | None:
    """A collection's name, refused here by the rule of the mesh, before anything is done."""
    try:
        return name and check_collection_name(name)
    except InvalidInput as error:
        raise UsageFailure(f"--collection: {error}") from None


CollectionOption = Annotated[
    str,
    typer.Option("--collection", "-c", metavar="NAME", callback=check_name, help="The collection."),
]


def find_url(given: str | None) -> str:
    """`--url` or RAGLAN_URL, else the mesh that runs on the default data folder, else port 8080."""
    if given:
        if not given.startswith(("http://", "https://")):
            raise UsageFailure(f"--url {given}: write it as http://host:port.")
        return given.rstrip("/")
    running = runfile.read_running(default_data_dir().expanduser().resolve())
    return running["url"] if running else DEFAULT_URL


class Refused(Failure):
    """The gateway answered with an error; `http` is its status."""

    def __init__(
        self,
        http: int,
        message: str,
        envelope: dict[str, Any] | None,
        *,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, envelope=envelope)
        self.http = http
        self.retry_after_s = retry_after_s


class Gateway:
    """A connection to one gateway. Close it, or use it in a `with` block."""

    def __init__(
        self, url: str, *, read_s: float = _READ_S, transport: httpx.BaseTransport | None = None
    ) -> None:
        """`read_s` is the longest silence while a reply is awaited."""
        self.url = url
        self._read_s = read_s
        # A proxy from the environment has no way to this machine's loopback.
        proxied = httpx.URL(url).host not in LOOPBACK
        timeout = httpx.Timeout(read_s, connect=_CONNECT_S)
        self._http = httpx.Client(
            base_url=url,
            timeout=timeout,
            trust_env=proxied,
            verify=tls_trust.context(),
            transport=transport,
            headers=_authorization(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def call(self, method: str, path: str, **request: Any) -> Any:
        """The JSON of the reply; None for an empty one.

        Raises:
            Refused: an error status, with the gateway's own message.
            Failure: nothing answers, or not in time.
        """
        with _as_failures(self.url, self._read_s):
            response = self._http.request(method, path, **request)
            if not response.is_success:
                raise _refused(response)
            return response.json() if response.content else None

    def call_patiently(self, method: str, path: str, **request: Any) -> Any:
        """`call` that waits and tries again while the gateway says it is overloaded or starting.

        Only for requests that change nothing the second time.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self.call(method, path, **request)
            except Refused as refused:
                if refused.http not in {429, 503} or attempt == _ATTEMPTS:
                    raise
                wait_s = refused.retry_after_s or 2.0 ** (attempt - 1)
                time.sleep(min(_LONGEST_WAIT_S, wait_s))
        raise AssertionError("the last attempt returns or raises")

    def events(self, path: str, body: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """POST `body` and yield (event, data) as they arrive.

        Raises:
            Refused: an error status before the stream began.
            Failure: nothing answers, or the connection broke.
        """
        with (
            _as_failures(self.url, self._read_s),
            httpx_sse.connect_sse(self._http, "POST", path, json=body) as source,
        ):
            if not source.response.is_success:
                source.response.read()
                raise _refused(source.response)
            for event in source.iter_sse():
                yield event.event, event.json() if event.data else {}

    def create_collection(self, name: str) -> None:
        """Make the collection; one that exists stays as it is."""
        try:
            self.call_patiently("POST", "/v1/collections", json={"name": name})
        except Refused as refused:
            if refused.http != httpx.codes.CONFLICT:
                raise

    def collection(self, name: str) -> dict[str, Any] | None:
        """Its statistics; None when there is none of that name."""
        try:
            found: dict[str, Any] = self.call("GET", f"/v1/collections/{segment(name)}")
        except Refused as refused:
            if refused.http == httpx.codes.NOT_FOUND:
                return None
            raise
        return found

    def filled_collections(self) -> list[str]:
        """Names of the collections that hold documents."""
        found = self.call("GET", "/v1/collections")["collections"]
        return [each["name"] for each in found if each["documents"]]

    def delete_collection(self, name: str) -> None:
        """Delete the collection with its documents."""
        self.call("DELETE", f"/v1/collections/{segment(name)}")

    def job(self, job_id: str) -> dict[str, Any]:
        """The job as it stands."""
        found: dict[str, Any] = self.call_patiently("GET", f"/v1/jobs/{segment(job_id)}")
        return found


def _authorization() -> dict[str, str]:
    """The key of the environment as a header; none where it names none.

    There is no option for it: other users of a machine see the options of a command.
    """
    key = os.environ.get(KEY_VARIABLE, "")
    if file := os.environ.get(f"{KEY_VARIABLE}_FILE", ""):
        if key:
            raise UsageFailure(f"{KEY_VARIABLE} and {KEY_VARIABLE}_FILE are both set; keep one.")
        key = read_secret(f"{KEY_VARIABLE}_FILE", Path(file)).get_secret_value()
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()):
        raise UsageFailure(f"{KEY_VARIABLE} has a character that no key has; copy it again.")
    return {"Authorization": f"Bearer {key}"}


def documents_path(collection: str) -> str:
    """Return the path for documents of `collection`."""
    return f"/v1/collections/{segment(collection)}/documents"


def segment(text: str) -> str:
    """`text` as one segment of a path. Dots alone are escaped as well: URLs resolve `..`."""
    quoted = quote(text, safe="")
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


@contextmanager
def _as_failures(url: str, read_s: float) -> Iterator[None]:
    """The one table from httpx's exceptions to ours."""
    try:
        yield
    except httpx.ConnectError:
        raise Failure(f"No gateway answers at {url}; start one with: raglan up") from None
    except httpx.ConnectTimeout:
        raise Failure(f"No gateway answers at {url} within {_CONNECT_S:g} s.") from None
    except httpx.TimeoutException:
        raise Failure(f"The gateway at {url} gave no answer for {read_s:g} s.") from None
    except (httpx.RemoteProtocolError, httpx.NetworkError):
        raise Failure(f"The gateway at {url} broke off; it may have ended.") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Failure(f"Talking to {url} failed: {error}") from None
    except httpx_sse.SSEError:
        raise Failure(f"What answers at {url} is not a Raglan gateway.") from None
    except ValueError:  # the body is not JSON
        raise Failure(f"What answers at {url} is not a Raglan gateway.") from None


def _refused(response: httpx.Response) -> Refused:
    try:
        body = response.json()
        message = str(body["error"]["message"])
    except (ValueError, KeyError, TypeError):
        sentence = f"{response.request.url} answered with HTTP status {response.status_code}."
        return Refused(response.status_code, sentence, None)
    after = response.headers.get("Retry-After", "")
    retry_after_s = float(after) if after.isdecimal() else None
    return Refused(response.status_code, message, body, retry_after_s=retry_after_s)
