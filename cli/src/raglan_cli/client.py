"""The gateway's REST interface, as the commands use it: errors become sentences."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Final, Self

import httpx
import typer
from raglan import client, tls_trust
from raglan.client import Client
from raglan.client.transport import DEFAULT_URL, documents_path, segment
from raglan.errors import InvalidInput
from raglan.identifiers import check_collection_name
from raglan.settings import default_data_dir, read_secret

from raglan_cli import runfile
from raglan_cli.failure import Failure, UsageFailure

__all__ = ["documents_path", "segment"]
KEY_VARIABLE: Final = "RAGLAN_API_KEY"
_CALL_S: Final = 3600.0
"""Longest call, an upload with its retries."""

_READ_S: Final = 120.0
"""Longer than any deadline the gateway grants, so that its own error arrives first."""

_RETRIES: Final = 5

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
        envelope: Mapping[str, Any] | None,
    ) -> None:
        super().__init__(message, envelope=dict(envelope) if envelope else None)
        self.http = http


class Gateway:
    """A connection to one gateway. Close it, or use it in a `with` block."""

    def __init__(self, url: str, *, read_s: float = _READ_S) -> None:
        """`read_s` is the longest silence while a reply is awaited."""
        self.url = url
        with _as_failures(url):
            self._client = Client(
                url,
                api_key=_api_key(),
                timeout_s=_CALL_S,
                silence_s=read_s,
                max_retries=0,
                verify=tls_trust.context(),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def call(self, method: str, path: str, **request: Any) -> Any:
        """The JSON of the reply; None for an empty one.

        Raises:
            Refused: an error status, with the gateway's own message.
            Failure: nothing answers, or not in time.
        """
        with _as_failures(self.url):
            return self._client.request(method, path, **request)

    def call_patiently(self, method: str, path: str, **request: Any) -> Any:
        """`call` that waits and tries again while the gateway is overloaded, starting or away.

        Only for requests that change nothing the second time.
        """
        return self.call(method, path, idempotent=True, max_retries=_RETRIES, **request)

    def events(self, path: str, body: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """POST `body` and yield (event, data) as they arrive.

        Raises:
            Refused: an error status before the stream began.
            Failure: nothing answers, or the connection broke.
        """
        with (
            _as_failures(self.url),
            self._client.events("POST", path, json=body) as events,
        ):
            yield from events

    def create_collection(
        self,
        name: str,
        strategy: str | None = None,
        max_versions: int | None = None,
        *,
        contextual: bool = False,
    ) -> None:
        """Make the collection; one that exists stays as it is.

        Raises:
            Refused: it exists with other settings than those given.
        """
        body: dict[str, Any] = {"name": name}
        chosen: dict[str, Any] = {"strategy": strategy, "contextual": contextual}
        chunking = {field: value for field, value in chosen.items() if value}
        if chunking:
            body["chunking"] = chunking
        if max_versions:
            body["versions"] = {"max_versions": max_versions}
        try:
            self.call_patiently("POST", "/v1/collections", json=body)
        except Refused as refused:
            held = self.collection(name) or {}
            kept = (held.get("versions") or {}).get("max_versions")
            cut = held.get("chunking", {})
            is_fit = all(cut.get(name) == value for name, value in chunking.items())
            is_fit = is_fit and max_versions in (None, kept)
            if refused.http != httpx.codes.CONFLICT or not is_fit:
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


def _api_key() -> str | None:
    """The key of the environment; None where it names none.

    There is no option for it: other users of a machine see the options of a command.
    """
    key = os.environ.get(KEY_VARIABLE, "")
    if file := os.environ.get(f"{KEY_VARIABLE}_FILE", ""):
        if key:
            raise UsageFailure(f"{KEY_VARIABLE} and {KEY_VARIABLE}_FILE are both set; keep one.")
        key = read_secret(f"{KEY_VARIABLE}_FILE", Path(file)).get_secret_value()
    if not (key.isascii() and key.isprintable()):
        raise UsageFailure(f"{KEY_VARIABLE} has a character that no key has; copy it again.")
    return key or None


@contextmanager
def _as_failures(url: str) -> Iterator[None]:
    """The one table from the client's errors to those of a command."""
    try:
        yield
    except client.Refused as error:
        raise Refused(error.status, error.message, error.envelope) from None
    except client.ConnectionFailed as error:
        hint = "" if error.reached else "; start one with: raglan up"
        raise Failure(f"{error.message.removesuffix('.')}{hint}{'.' * (not hint)}") from None
    except client.RaglanError as error:
        raise Failure(error.message) from None
    except ValueError as error:
        raise Failure(f"Talking to {url} failed: {error}") from None
