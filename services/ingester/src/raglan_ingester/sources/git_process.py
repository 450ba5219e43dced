"""Fetches and reads a git repository, in a process of its own that can be limited and killed.

Requests are JSON, one a line. Each reply is a line of JSON, `{"size": n}` or `{"error": text}`, and
n bytes. Nothing of a repository is ever checked out or run: no hooks, no filters, no submodules.
"""

from __future__ import annotations

import io
import json
import logging
import os
import resource
import shutil
import stat
import sys
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from dulwich.client import get_transport_and_path
from dulwich.errors import GitProtocolError, HangupException, NotGitRepository
from dulwich.object_store import iter_tree_contents
from dulwich.objects import Blob, Commit, ObjectID, Tag
from dulwich.pack import DELTA_TYPES, REF_DELTA, take_msb_bytes
from dulwich.refs import Ref
from dulwich.repo import Repo

_MEMORY_BYTES: Final = 2 * 1024**3
_FILE_BYTES: Final = 2 * 1024**3
_MAX_PACKS: Final = 50
"""Each fetch leaves a pack; after so many the repository is fetched anew."""
_SHA_BYTES: Final = 20
_HEAD_BYTES: Final = 256
"""Enough of a delta for the two sizes that it begins with."""


class _Failure(Exception):
    """A failure whose text is meant for the operator."""


class GitProcess:
    """The repository in `folder`, fetched from `url`."""

    def __init__(self, start: dict[str, Any]) -> None:
        self._folder = Path(start["folder"])
        self._ref: str = start["ref"]
        options = {key: start[key] for key in ("username", "password") if start[key]}
        self._client, self._path = get_transport_and_path(start["url"], **options)
        self._is_local = start["url"].startswith("/")

    def head(self) -> ObjectID:
        """Return the commit that the ref has at the remote."""
        refs = self._client.get_refs(self._path.encode()).refs
        name = self._ref.encode()
        for each in (name, b"refs/heads/" + name, b"refs/tags/" + name):
            if found := refs.get(Ref(each)):
                return found
        raise _Failure(f"The repository has no branch or tag {self._ref!r}.")

    def fetch(self, sha: ObjectID) -> bytes:
        """Fetch a commit without its history; return the id of the commit."""
        repository = self._open()
        try:
            if sha not in repository.object_store:
                self._client.fetch(
                    self._path,
                    repository,
                    determine_wants=lambda refs, depth=None: [sha],
                    depth=None if self._is_local else 1,
                )
            return _commit(repository, sha).id
        finally:
            repository.close()

    def entries(self, sha: ObjectID, limit: int) -> bytes:
        """Return [path, blob id] of regular files, `limit` + 1 at most, as JSON."""
        found = []
        with Repo(str(self._folder)) as repository:
            tree = _commit(repository, sha).tree
            for entry in iter_tree_contents(repository.object_store, tree):
                if entry.mode is not None and stat.S_ISREG(entry.mode):
                    path = entry.path.decode("utf-8", "surrogateescape")
                    found.append((path, entry.sha.decode()))
                    if len(found) > limit:
                        break
        return json.dumps(found).encode()

    def read(self, sha: ObjectID, limit: int) -> bytes:
        """Return the content of a blob of up to `limit` bytes; a larger one is not loaded."""
        with Repo(str(self._folder)) as repository:
            size = blob_size(repository, sha)
            if size > limit:
                raise _Failure(
                    f"It has {size:,} bytes; the limit is {limit:,} "
                    "(RAGLAN_INGESTER_MAX_DOCUMENT_BYTES)."
                )
            found = repository.object_store[sha]
            assert isinstance(found, Blob)
            return bytes(found.data)

    def _open(self) -> Repo:
        packs = self._folder / "objects" / "pack"
        if packs.is_dir() and len(list(packs.glob("*.pack"))) > _MAX_PACKS:
            shutil.rmtree(self._folder)
        try:
            return Repo(str(self._folder))
        except NotGitRepository:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True)
            return Repo.init_bare(str(self._folder))


def blob_size(repository: Repo, sha: ObjectID) -> int:
    """Return the size of an object of a pack, from its first bytes.

    What was fetched is in packs. A delta's own first bytes have the size of what it makes.

    Raises:
        KeyError: no pack has it.
    """
    for pack in repository.object_store.packs:
        with suppress(KeyError):
            return _size_in(Path(pack.data.path), pack.index.object_offset(sha))
    raise KeyError(sha)


def _size_in(pack: Path, offset: int) -> int:
    with pack.open("rb") as file:
        file.seek(offset)
        head, _ = take_msb_bytes(file.read)
        kind = head[0] >> 4 & 7
        if kind not in DELTA_TYPES:
            return head[0] & 15 | _varint(head[1:]) << 4
        if kind == REF_DELTA:
            file.seek(_SHA_BYTES, os.SEEK_CUR)
        else:
            take_msb_bytes(file.read)
        delta = io.BytesIO(zlib.decompressobj().decompress(file.read(_HEAD_BYTES), _HEAD_BYTES))
        take_msb_bytes(delta.read)  # the size of what it is applied to
        return _varint(take_msb_bytes(delta.read)[0])


def _varint(septets: Sequence[int]) -> int:
    return sum((each & 127) << 7 * at for at, each in enumerate(septets))


def _commit(repository: Repo, sha: ObjectID) -> Commit:
    found = repository.object_store[sha]
    while isinstance(found, Tag):
        found = repository.object_store[found.object[1]]
    if not isinstance(found, Commit):
        raise _Failure("The ref leads to no commit.")
    return found


def _answer(process: GitProcess, request: dict[str, Any]) -> bytes:
    match request["do"]:
        case "head":
            return process.head()
        case "fetch":
            return process.fetch(ObjectID(request["sha"].encode()))
        case "list":
            return process.entries(ObjectID(request["sha"].encode()), request["limit"])
        case _:
            return process.read(ObjectID(request["sha"].encode()), request["limit"])


def _attempt(process: GitProcess, request: dict[str, Any]) -> tuple[bytes, str]:
    """The body and the error of a reply."""
    try:
        return _answer(process, request), ""
    except _Failure as error:
        return b"", str(error)
    except MemoryError:
        return b"", "It needs more memory than git may use."
    except KeyError:
        return b"", "An object is missing."
    except (HangupException, GitProtocolError, NotGitRepository) as error:
        return b"", f"The repository cannot be fetched: {type(error).__name__}."
    except OSError as error:
        return b"", f"The repository cannot be fetched: {error.strerror or type(error).__name__}."
    except Exception as error:  # noqa: BLE001 - what a damaged pack raises is not listed anywhere
        return b"", f"The repository cannot be read: {type(error).__name__}."


def main() -> None:
    """Answer requests until standard input ends. The first line has the settings."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable()
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no reply
    process: GitProcess | None = None
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if process is None:
            process = GitProcess(request)
            continue
        body, error = _attempt(process, request)
        head = {"error": error} if error else {"size": len(body)}
        replies.write(json.dumps(head).encode() + b"\n" + body)
        replies.flush()


if __name__ == "__main__":
    main()
