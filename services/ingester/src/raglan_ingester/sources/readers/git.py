"""Reader of a git repository: the files of one commit, told apart by their blobs."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from raglan.identifiers import shortened

from raglan_ingester.sources.config import GitSettings
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

_HEAD_S: Final = 60.0
_FETCH_S: Final = 1800.0
_READ_S: Final = 120.0
_MAX_FILES: Final = 1_000_000
"""Files of a repository that are looked at; `max_documents` limits those that are read."""
_LFS: Final = b"version https://git-lfs.github.com/spec/"


class GitReader:
    """Lists and reads the files of a commit.

    Args:
        settings: of the source.
        password: for the repository; empty for none.
        folder: of the copy of the repository.
        max_bytes: of one file.
    """

    def __init__(self, settings: GitSettings, password: str, folder: Path, max_bytes: int) -> None:
        self._settings = settings
        self._password = password
        self._folder = folder
        self._max_bytes = max_bytes
        self._selection = Selection(settings)
        self._process: asyncio.subprocess.Process | None = None

    async def list_entries(self, cursor: str, skipped: Skipped) -> Listing | None:
        """List the files, as `Reader.list_entries` does; the cursor is the commit."""
        sha = (await self._call({"do": "head"}, _HEAD_S)).decode()
        if sha == cursor:
            return None
        commit = (await self._call({"do": "fetch", "sha": sha}, _FETCH_S)).decode()
        request = {"do": "list", "sha": commit, "limit": _MAX_FILES}
        files = await self._call(request, _FETCH_S)
        return Listing(await asyncio.to_thread(self._entries, files), cursor=sha)

    def _entries(self, reply: bytes) -> list[Entry]:
        files: list[tuple[str, str]] = json.loads(reply)
        if len(files) > _MAX_FILES:
            raise too_many(self._settings.name, _MAX_FILES)
        taken = [Entry(path, blob) for path, blob in files if self._selection.takes_path(path)]
        if len(taken) > self._settings.max_documents:
            raise too_many(self._settings.name, self._settings.max_documents)
        return taken

    async def read(self, entry: Entry, former: str) -> Content | None:
        """Read a file, as `Reader.read` does."""
        try:
            request = {"do": "read", "sha": entry.version, "limit": self._max_bytes}
            data = await self._call(request, _READ_S)
        except SourceUnavailable as error:
            raise SkippedDocumentError(f"{shortened(entry.key)}: {error.message}") from None
        if data.startswith(_LFS):
            raise SkippedDocumentError(
                f"{shortened(entry.key)} is kept by git LFS, which is not read."
            )
        name = entry.key.rpartition("/")[2]
        metadata = {"path": entry.key, "repository": self._settings.url}
        return Content(data, filename=name, metadata=metadata)

    async def close(self) -> None:
        """End the process."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.communicate()

    async def _call(self, request: dict[str, Any], timeout_s: float) -> bytes:
        """Send one request.

        Raises:
            SourceUnavailable: it failed, or took longer than `timeout_s`.
        """
        try:
            async with asyncio.timeout(timeout_s):
                process = await self._started()
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(json.dumps(request).encode() + b"\n")
                await process.stdin.drain()
                reply = json.loads(await process.stdout.readline())
                if "error" in reply:
                    raise SourceUnavailable(f"{self._settings.url}: {reply['error']}")
                return await process.stdout.readexactly(reply["size"])
        except TimeoutError:
            await self._restart()
            raise SourceUnavailable(
                f"{self._settings.url} did not answer within {timeout_s:g} s."
            ) from None
        except (OSError, ValueError, asyncio.IncompleteReadError):
            await self._restart()
            raise SourceUnavailable(f"{self._settings.url}: git ended unexpectedly.") from None

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "raglan_ingester.sources.git_process"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                # No settings of the service, and none of git's own files, reach it.
                env={"PATH": os.defpath, "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
                | {key: os.environ[key] for key in _PASSED if key in os.environ},
            )
            start = {
                "url": self._settings.url,
                "ref": self._settings.ref,
                "folder": str(self._folder),
                "username": self._settings.username,
                "password": self._password,
            }
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(start).encode() + b"\n")
        return self._process

    async def _restart(self) -> None:
        await self.close()
        self._process = None


_PASSED: Final = ("PYTHONPATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "NO_PROXY")
