"""`raglan restart`: every process of a running mesh anew, one after the other."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Final

import typer

from raglan_cli import display, runfile
from raglan_cli.failure import Failure, UsageFailure
from raglan_cli.rolling import ORDER
from raglan_cli.runfile import RestartEntry
from raglan_cli.screen import err, out
from raglan_cli.up import DataOption, data_folder

_POLL_S: Final = 0.1
_HEARD_S: Final = 5.0


def restart(
    services: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SERVICE]...", help="Which services; all when none is named."),
    ] = None,
    data: DataOption = None,
) -> None:
    """Restart the running mesh, or some of its services, without losing a request.

    One process after the other: a new gateway takes over the socket of the old one, replicas
    answer for each other, and a stand-in answers for a service that runs once. The ingester, and
    the retriever unless Qdrant keeps its data, hold theirs alone: there is a short gap, which is
    reported.

    Examples:

      raglan restart

      raglan restart gateway embedder
    """
    folder = data_folder(data)
    wanted = services or []
    if unknown := [s for s in wanted if s not in ORDER]:
        raise UsageFailure(f"There is no service {unknown[0]!r}; there are {', '.join(ORDER)}.")
    document = runfile.read_running(folder)
    if document is None:
        raise Failure(f"No mesh runs on {folder}. Start it with: raglan up")
    if "restart" not in document:
        raise Failure(f"The mesh on {folder} runs an older version: raglan down, then raglan up.")
    if document["restart"] and document["restart"]["state"] == "running":
        raise Failure(f"A restart is going on ({document['restart']['doing']}).")
    running = {entry["service"] for entry in document["services"]}
    if absent := [s for s in wanted if s not in running]:
        raise Failure(f"The {absent[0]} runs elsewhere; restart it there.")
    began = time.monotonic()
    _follow(folder, runfile.request_restart(folder, document["pid"], wanted))
    out.print(f"Restarted after {time.monotonic() - began:.1f} s.")


def _follow(data: Path, request: str) -> None:
    """Show the restart until it is over. Each process is bounded by the mesh's --start-limit.

    Raises:
        Failure: it was abandoned.
    """
    shown, began = "", time.monotonic()
    while True:
        document = runfile.read_running(data)
        if document is None:
            raise Failure("The mesh was stopped.")
        entry: RestartEntry | None = document["restart"]
        if entry and entry["id"] == request:
            if entry["doing"] != shown:
                shown = entry["doing"]
                err.print(display.restarted(entry))
            if entry["state"] == "done":
                return
            if entry["state"] == "failed":
                raise Failure(f"The restart was abandoned: {entry['reason']}")
        elif time.monotonic() - began > _HEARD_S:
            raise Failure(f"The mesh (pid {document['pid']}) does not listen to a restart.")
        time.sleep(_POLL_S)
