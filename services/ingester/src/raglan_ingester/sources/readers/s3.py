"""Reader of the objects below a prefix of a bucket, by botocore in threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, Final, NoReturn

from raglan.identifiers import shortened

from raglan_ingester.sources.config import S3Settings
from raglan_ingester.sources.reader import (
    Content,
    Entry,
    Listing,
    Skipped,
    SkippedDocumentError,
    SourceUnavailable,
    too_many,
)
from raglan_ingester.sources.selection import Selection

_LIST_S: Final = 1800.0
_READ_S: Final = 300.0
_CONNECT_S: Final = 5.0
_STALL_S: Final = 30.0
"""Longest wait for the next bytes of a reply."""
_ATTEMPTS: Final = 3
_PIECE_BYTES: Final = 1024 * 1024
_FAILURES: Final = 10
"""Objects that fail one after the other before the sync ends."""
_NOT_FOUND, _CHANGED, _SERVER_ERROR = 404, 412, 500
_MISSING_BUCKET: Final = "NoSuchBucket"


class S3Reader:
    """Lists and reads objects.

    Args:
        settings: of the source.
        secret: secret access key; empty without an `access_key_id`.
        max_bytes: of one object.
    """

    def __init__(self, settings: S3Settings, secret: str, max_bytes: int) -> None:
        self._settings = settings
        self._secret = secret
        self._max_bytes = max_bytes
        self._selection = Selection(settings)
        self._client: Any = None
        self._too_large: dict[str, int] = {}
        self._failures = 0
        self._stop = threading.Event()

    async def list_entries(self, cursor: str, skipped: Skipped) -> Listing | None:
        """List the objects, as `Reader.list_entries` does; a bucket has no cursor."""
        return await asyncio.to_thread(self._list)

    async def read(self, entry: Entry, former: str) -> Content | None:
        """Read an object, as `Reader.read` does."""
        data = await asyncio.to_thread(self._read, entry)
        if data is None:
            return None
        key = f"{self._settings.prefix}{entry.key}"
        return Content(
            data,
            filename=entry.key.rpartition("/")[2],
            metadata={"path": entry.key, "url": f"s3://{self._settings.bucket}/{key}"},
        )

    async def close(self) -> None:
        """Make what still runs in a thread end."""
        self._stop.set()
        if self._client is not None:
            self._client.close()

    def _list(self) -> Listing:
        until = time.monotonic() + _LIST_S
        entries: list[Entry] = []
        settings = self._settings
        with self._errors(f"The bucket {shortened(settings.bucket)} cannot be listed"):
            self._client = self._client or _client(settings, self._secret)
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=settings.bucket, Prefix=settings.prefix
            )
            for page in pages:
                self._check_time(until)
                entries += map(self._entry, filter(self._is_chosen, page.get("Contents", ())))
                if len(entries) > settings.max_documents:
                    raise too_many(settings.name, settings.max_documents)
        return Listing(entries)

    def _is_chosen(self, found: Mapping[str, Any]) -> bool:
        return self._selection.takes_path(found["Key"].removeprefix(self._settings.prefix))

    def _entry(self, found: Mapping[str, Any]) -> Entry:
        key, size = found["Key"].removeprefix(self._settings.prefix), found["Size"]
        if size > self._max_bytes:
            self._too_large[key] = size
        return Entry(key, found["ETag"])

    def _read(self, entry: Entry) -> bytes | None:
        self._check_size(entry.key, self._too_large.get(entry.key, 0))
        name = shortened(entry.key)
        with self._errors(f"{name} cannot be read"):
            try:
                found = self._client.get_object(
                    Bucket=self._settings.bucket,
                    Key=f"{self._settings.prefix}{entry.key}",
                    IfMatch=entry.version,
                )
            except self._client.exceptions.ClientError as error:
                self._check_refusal(error, name)
                return None
            with closing(found["Body"]) as body:
                self._check_size(entry.key, found["ContentLength"])
                return self._received(body, name)

    def _check_refusal(self, error: Any, name: str) -> None:
        """Raise unless the object is gone."""
        status, code = _status(error), error.response["Error"]["Code"]
        if code == _MISSING_BUCKET or status >= _SERVER_ERROR:
            raise error
        if status == _NOT_FOUND:
            return
        if status == _CHANGED:
            raise SkippedDocumentError(
                f"{name} changed while it was read; the next sync reads it."
            ) from None
        self._count_failure(error, f"{name} cannot be read: {code} ({status}).")

    def _count_failure(self, error: Exception, message: str) -> NoReturn:
        """Skip the object, unless it is the last of many that failed one after the other."""
        self._failures += 1
        if self._failures == _FAILURES:
            raise error
        raise SkippedDocumentError(message) from None

    def _received(self, body: Any, name: str) -> bytes:
        from botocore.exceptions import BotoCoreError

        until = time.monotonic() + _READ_S
        pieces = []
        try:
            for piece in body.iter_chunks(_PIECE_BYTES):
                if self._stop.is_set() or time.monotonic() > until:
                    raise SkippedDocumentError(f"{name} could not be read within {_READ_S:g} s.")
                pieces.append(piece)
        except BotoCoreError as error:
            self._count_failure(error, f"{name} broke off: {type(error).__name__}.")
        self._failures = 0
        return b"".join(pieces)

    def _check_size(self, key: str, size: int) -> None:
        if size > self._max_bytes:
            raise SkippedDocumentError(
                f"{shortened(key)} has {size:,} bytes; the limit is {self._max_bytes:,} "
                "(RAGLAN_INGESTER_MAX_DOCUMENT_BYTES)."
            )

    def _check_time(self, until: float) -> None:
        if self._stop.is_set() or time.monotonic() > until:
            raise SourceUnavailable(
                f"{shortened(self._settings.url)} could not be listed within {_LIST_S:g} s."
            )

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turn botocore's errors, whose texts may hold addresses and keys, into short sentences."""
        from botocore import exceptions

        try:
            yield
        except exceptions.ClientError as error:
            code = error.response["Error"]["Code"]
            raise SourceUnavailable(f"{what}: {code} ({_status(error)}).") from None
        except exceptions.NoCredentialsError:
            raise SourceUnavailable(
                f"{what}: there are no credentials; give access_key_id and secret_access_key_file, "
                "or anonymous."
            ) from None
        except exceptions.BotoCoreError as error:
            raise SourceUnavailable(f"{what}: {type(error).__name__}.") from None


def _status(error: Any) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def _client(settings: S3Settings, secret: str) -> Any:
    # Not before it is needed: it takes 0.2 s and 20 MB.
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.session import Session

    config = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_STALL_S,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        s3={"addressing_style": "path" if settings.endpoint else "auto"},
        signature_version=UNSIGNED if settings.anonymous else None,
        user_agent_extra="raglan",
    )
    return Session().create_client(
        "s3",
        region_name=settings.region,
        endpoint_url=settings.endpoint or None,
        aws_access_key_id=settings.access_key_id or None,
        aws_secret_access_key=secret or None,
        config=config,
    )
