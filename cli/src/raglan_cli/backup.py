"""`raglan backup` and `raglan restore`: documents, jobs and index in a folder, and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from raglan_cli import runfile
from raglan_cli.client import JsonOption
from raglan_cli.failure import Failure, UsageFailure
from raglan_cli.screen import counted, err, note, out, print_json
from raglan_cli.up import DataOption, data_folder

if TYPE_CHECKING:  # gRPC takes half a second to import, which other commands need not wait for
    from raglan.v1 import ingester_pb2

    from raglan_cli.backup_folder import BackupWriter, Contents, UnitReader
    from raglan_cli.ingester_calls import IngesterCalls

_DEFAULT_ADDRESS: Final = "127.0.0.1:7105"

IngesterOption = Annotated[
    str | None,
    typer.Option(
        "--ingester",
        envvar="RAGLAN_GATEWAY_INGESTER_ADDRESS",
        metavar="HOST:PORT",
        help="The ingester. Default: the one of the mesh that `raglan up` runs here.",
    ),
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the backup.")]
OptionalFolder = Annotated[
    Path | None, typer.Argument(metavar="DIR", help="The folder of the backup.")
]


def backup(
    folder: Folder,
    ingester: IngesterOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Copy documents, jobs and index of a running deployment into a folder.

    Nothing has to stop: every document is copied whole, as it was when it was read. A backup that
    was cut off goes on when the same command is given again.

    Examples:

      raglan backup /backups/2026-11-29

      raglan backup /backups/today --ingester ingester:7105
    """
    from raglan_cli.backup_folder import BackupWriter

    with _disk_errors(folder, "written"):
        writer = BackupWriter(folder)
        try:
            if writer.is_resumed:
                note(f"Going on with the backup that was begun {writer.contents.began}.")
            asyncio.run(_copy(writer, _address(ingester, data), quiet=json))
            contents = writer.finish()
        finally:
            writer.close()
    _show(contents, folder, "Backed up", json=json)
    if contents.unreadable:
        name, reason = min(contents.unreadable.items())
        raise Failure(f"The index of collection {name!r} is not in the backup: {reason}")


def restore(
    folder: OptionalFolder = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Delete what the deployment holds first.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only check the backup against its checksums.")
    ] = False,
    abandon: Annotated[
        bool,
        typer.Option("--abandon", help="End a restore that was cut off; what it restored stays."),
    ] = False,
    ingester: IngesterOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Restore a backup into a running deployment, which must be empty.

    All checksums are checked before anything is changed. A restore that was cut off goes on when
    the same command is given again; until then the deployment takes no documents.

    Examples:

      raglan restore /backups/2026-11-29

      raglan restore /backups/2026-11-29 --check
    """
    from raglan_cli.backup_folder import verify

    if abandon:
        _abandon(_address(ingester, data))
        return
    if folder is None:
        raise UsageFailure("Name the folder of the backup: raglan restore DIR")
    with _disk_errors(folder, "read"):
        contents = verify(folder)
        if not check:
            asyncio.run(
                _send(folder, contents, _address(ingester, data), replace=replace, quiet=json)
            )
    _show(contents, folder, "Checked" if check else "Restored", json=json)


def _abandon(address: str) -> None:
    from raglan_cli.ingester_calls import IngesterCalls

    async def end() -> int:
        async with IngesterCalls(address) as calls:
            return await calls.patiently(lambda: calls.end(""))

    if not asyncio.run(end()):
        raise Failure("No restore is under way.")
    out.print("The restore has ended; what it restored stays.")


async def _copy(writer: BackupWriter, address: str, *, quiet: bool) -> None:
    from raglan_cli.ingester_calls import IngesterCalls

    async with IngesterCalls(address) as calls:
        with _status(quiet) as show:
            while not writer.is_whole:
                await calls.patiently(lambda: _copy_unit(writer, calls))
                show(f"Copied {counted(writer.contents.documents, 'document')} ...")


async def _copy_unit(writer: BackupWriter, calls: IngesterCalls) -> None:
    writer.begin_unit()
    writer.end_unit(await calls.export(writer.contents.cursor, writer.write))


async def _send(
    folder: Path, contents: Contents, address: str, *, replace: bool, quiet: bool
) -> None:
    from raglan_cli.backup_folder import UnitReader
    from raglan_cli.ingester_calls import IngesterCalls

    reader = UnitReader(folder, contents)
    header = next(reader.records()).header
    async with IngesterCalls(address) as calls:
        done = await calls.patiently(lambda: calls.begin(contents.id, header, replace=replace))
        if done > 1:
            note(f"Going on after {counted(done, 'unit')} of {contents.units}.")
        with _status(quiet) as show:
            for number in range(contents.units):
                if number >= done:
                    send = partial(_send_unit, calls, reader, contents.id, number)
                    await calls.patiently(send)
                reader.advance()
                show(f"Restored {number + 1} of {counted(contents.units, 'unit')} ...")
        await calls.patiently(lambda: calls.end(contents.id))


async def _send_unit(calls: IngesterCalls, reader: UnitReader, backup_id: str, number: int) -> None:
    await calls.send(_requests(reader, backup_id, number))


async def _requests(
    reader: UnitReader, backup_id: str, number: int
) -> AsyncIterator[ingester_pb2.ImportRequest]:
    from raglan.v1 import ingester_pb2

    unit = ingester_pb2.ImportUnit(backup_id=backup_id, number=number)
    yield ingester_pb2.ImportRequest(unit=unit)
    for record in reader.records():
        yield ingester_pb2.ImportRequest(record=record)


def _address(given: str | None, data: Path | None) -> str:
    """The first address of those given, else that of the mesh on `data`, else the default port."""
    if given:
        return given.partition(",")[0].strip()
    running = runfile.read_running(data_folder(data))
    for entry in running["services"] if running else ():
        if entry["service"] == "ingester":
            return entry["address"]
    return _DEFAULT_ADDRESS


@contextmanager
def _status(quiet: bool) -> Iterator[Any]:
    """Yield a function that shows one line about the work, where there is a terminal."""
    if quiet or not err.is_terminal:
        yield lambda line: None
        return
    with err.status("") as status:
        yield status.update


@contextmanager
def _disk_errors(folder: Path, done: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Failure(
            f"{error.filename or folder} cannot be {done}: {error.strerror or error}. When that is "
            "fixed, the same command goes on where it stopped."
        ) from None


def _show(contents: Contents, folder: Path, verb: str, *, json: bool) -> None:
    if json:
        print_json(
            {
                "folder": str(folder),
                "id": contents.id,
                "began": contents.began,
                "ended": contents.ended,
                "collections": contents.collections,
                "documents": contents.documents,
                "chunks": contents.chunks,
                "jobs": contents.jobs,
                "incomplete": contents.incomplete,
                "bytes": contents.bytes,
                "unreadable": contents.unreadable,
            }
        )
        return
    parts = (
        counted(contents.documents, "document"),
        counted(contents.chunks, "chunk"),
        counted(contents.jobs, "job"),
    )
    of = counted(len(contents.collections), "collection")
    out.print(f"{verb} {', '.join(parts)} of {of} ({contents.bytes / 1e6:.1f} MB): {folder}")
    if contents.incomplete:
        what = counted(contents.incomplete, "document")
        note(f"Of {what} the index lacks chunks; an ingester with the bytes indexes them anew.")
