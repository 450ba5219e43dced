"""Files made once from a model: whole or not at all, by one process, in sight and stoppable.

What makes them needs libraries that no service should load, so it runs as a process of its own.
Services that start together share the cache: a lock lets one of them make a file, and the file
appears under its name only when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Final
from uuid import uuid4

import structlog
from filelock import FileLock, Timeout

from raglan.encoders.model import EncoderModel
from raglan.errors import Unavailable

log: Final = structlog.get_logger()

TIMEOUT_S: Final = 900.0
"""Longest a conversion may take, and longest another process waits for it."""

_POLL_S: Final = 0.1
"""Interval at which a stop is checked."""

_MARK: Final = "stage "
"""Begins a line of the converting process that reports progress; libraries print others."""


def made_once(
    model: EncoderModel,
    target: Path,
    module: str,
    *arguments: str,
    stopped: threading.Event | None = None,
) -> Path:
    """`target`, written by `python -m <module> <model folder> <target> ...` unless it is there.

    One that is damaged is made again.

    Args:
        model: source of the conversion.
        target: a file or a folder; its name says what it was made from, and by which version.
        module: module that converts.
        *arguments: further arguments of the module.
        stopped: when it is set, the conversion is abandoned within a moment.

    Raises:
        Unavailable: the process failed or was stopped, or the cache cannot be written; the
            message says why.
    """
    if is_whole(target):
        return target
    stopped = stopped or threading.Event()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{target}.lock", poll_interval=_POLL_S)
        with lock.acquire(timeout=TIMEOUT_S, cancel_check=stopped.is_set):
            if not is_whole(target):
                _make(model, target, [sys.executable, "-m", module], arguments, stopped)
    except Timeout:
        if stopped.is_set():
            raise _given_up(model) from None
        raise Unavailable(
            f"Another process has held {target}.lock for {TIMEOUT_S:.0f} s; is its conversion "
            "stuck?"
        ) from None
    except OSError as error:
        raise Unavailable(
            f"The model cache {target.parent} cannot be used: {error.strerror or error}. Mount a "
            "volume there that can be written to, or set RAGLAN_EMBEDDER_CACHE_DIR and "
            "RAGLAN_RERANKER_CACHE_DIR to another folder."
        ) from error
    return target


def is_whole(target: Path) -> bool:
    """Return whether `target` holds what was written.

    A full disk, a crash or a flipped bit would otherwise be served, or stop every start.
    """
    if not target.exists():
        return False
    stated = _digest_file(target)
    if stated.is_file() and stated.read_text("ascii", errors="replace") == _digest(target):
        return True
    log.warning("a file in the model cache is damaged and is made again", file=str(target))
    return False


def report(stage: str, done: int = 0, total: int = 0) -> None:
    """Called in the converting process: what it does now, and how far it is."""
    line = json.dumps({"stage": stage, "done": done, "total": total})
    print(f"{_MARK}{line}", flush=True)  # noqa: T201 - the pipe to the service


def _make(
    model: EncoderModel,
    target: Path,
    program: list[str],
    arguments: Iterable[str],
    stopped: threading.Event,
) -> None:
    for left in target.parent.glob(f"{target.name}.*.partial"):
        _remove(left)  # of a service that was killed
    # Not a fixed name: a process that outlived its service may still be writing to the last one.
    partial = target.with_name(f"{target.name}.{uuid4().hex[:8]}.partial")
    log.info("converting the model, once", model=model.id, file=str(target))
    started = time.monotonic()
    try:
        _run([*program, str(model.path), str(partial), *arguments], model, stopped)
        _flush(partial)
        digest = _digest(partial)
        _remove(target)
        _digest_file(target).write_text(digest, "ascii")
        partial.rename(target)
    finally:
        _remove(partial)
    log.info("model converted", model=model.id, seconds=round(time.monotonic() - started, 1))


def _run(command: list[str], model: EncoderModel, stopped: threading.Event) -> None:
    """Run `command` to its end.

    Raises:
        Unavailable: it failed, was stopped or took too long.
    """
    started = time.monotonic()
    with (
        tempfile.TemporaryFile("w+", errors="replace") as words,
        subprocess.Popen(  # noqa: S603 - our own modules, paths of ours
            command, stdout=subprocess.PIPE, stderr=words, text=True, errors="replace"
        ) as process,
        _Progress(process.stdout or (), model.id) as progress,
    ):
        try:
            while process.poll() is None:
                progress.show(time.monotonic() - started)
                if stopped.wait(_POLL_S):
                    raise _given_up(model)
                if time.monotonic() - started > TIMEOUT_S:
                    raise Unavailable(
                        f"The conversion of {model.id!r} took over {TIMEOUT_S:.0f} s."
                    )
        finally:
            process.kill()
        if process.returncode != 0:
            words.seek(0)
            raise Unavailable(_explain(model, process.returncode, words.read()))


class _Progress:
    """Reads what the converting process reports: each stage to the log, each step to a terminal."""

    def __init__(self, lines: Iterable[str], name: str) -> None:
        self._name = name
        self._shown = ""
        self._reader = threading.Thread(target=self._read, args=(lines,), daemon=True)
        self._terminal: IO[str] | None = sys.stderr if sys.stderr.isatty() else None

    def __enter__(self) -> _Progress:
        self._reader.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.join()
        if self._terminal is not None:
            self._terminal.write("\r\x1b[2K")
            self._terminal.flush()

    def show(self, seconds: float) -> None:
        if self._terminal is not None:
            self._terminal.write(f"\r\x1b[2K{self._name}: {self._shown or 'starting'} ")
            self._terminal.write(f"({seconds:.0f} s)")
            self._terminal.flush()

    def _read(self, lines: Iterable[str]) -> None:
        last = ""
        for line in lines:
            if not line.startswith(_MARK):
                continue
            told = json.loads(line.removeprefix(_MARK))
            stage, done, total = told["stage"], told["done"], told["total"]
            self._shown = f"{stage} {done}/{total}" if total else stage
            if stage != last:
                log.info("converting", model=self._name, stage=stage)
                last = stage


def _given_up(model: EncoderModel) -> Unavailable:
    return Unavailable(f"The service is stopping; the conversion of {model.id!r} was abandoned.")


def _explain(model: EncoderModel, status: int, stderr: str) -> str:
    silent = f"it ended with status {status} and no word"
    last = next((line for line in reversed(stderr.splitlines()) if line.strip()), silent)
    if "ModuleNotFoundError" in last:
        return (
            f"Model {model.id!r} must be converted, and a library for that is missing ({last}): "
            'install "raglan[torch]", give a model folder that holds onnx/model.onnx with '
            "precision f32 or bf16, or bring along the cache folder of a machine that has it."
        )
    return f"The conversion of {model.id!r} failed: {last}"


def _digest_file(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(f"{file.relative_to(path)}\0".encode())
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    """Put a file, or the files of a folder, onto the disk: its name must not outlive a crash."""
    for file in path.iterdir() if path.is_dir() else [path]:
        with file.open("rb+") as stream:
            os.fsync(stream.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
