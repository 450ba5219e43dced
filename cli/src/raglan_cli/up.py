"""`raglan up` and `raglan down`: the mesh on this machine, in front of you or in the background."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated, Final

import typer
from raglan.rpc.addresses import format_address
from raglan.settings import default_data_dir

from raglan_cli import background, mesh, runfile
from raglan_cli.failure import Failure
from raglan_cli.foreground import supervise
from raglan_cli.screen import err, out

DEFAULT_PORT: Final = 8080
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="Data folder. Default: $RAGLAN_DATA or ~/.local/share/raglan."
    ),
]


def up(
    data: DataOption = None,
    port: Annotated[
        int,
        typer.Option(help="Port of the gateway.", min=1, max=65535, envvar="RAGLAN_GATEWAY_PORT"),
    ] = DEFAULT_PORT,
    replicas: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SERVICE=N",
            help="Run a service N times, e.g. gateway=2; may be repeated, or with commas.",
        ),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once ready; the mesh stays in the background.")
    ] = False,
    start_limit: Annotated[
        float, typer.Option(help="Seconds within which everything must be ready.", min=1)
    ] = 300,
) -> None:
    """Start the whole mesh on this machine.

    That is gateway, embedder, retriever, reranker, generator, ingester and tracer, a process each.
    They take their settings from RAGLAN_<SERVICE>_<FIELD>, e.g. RAGLAN_GENERATOR_ENGINE=openai.
    Ctrl-C stops everything.

    Examples:

      raglan up

      raglan up --data ./handbook --port 9000 --replicas gateway=2,embedder=2

      raglan up --detach; raglan ask "What is this about?"; raglan down
    """
    folder = data_folder(data)
    counts = mesh.parse_replicas(replicas or [])
    mesh.refuse_unknown_variables(os.environ)
    runfile.refuse_second(folder)
    planned = mesh.plan(folder, port, counts, os.environ)
    _refuse_taken_port(planned, port)
    if unshared := mesh.unshared_limit(counts, os.environ):
        err.print(unshared, style="yellow")
    if detach:
        background.start(folder, port, replicas or [], start_limit)
    else:
        with runfile.held_lock(folder):
            raise typer.Exit(asyncio.run(supervise(planned, start_limit)))


def down(data: DataOption = None) -> None:
    """Stop the mesh that runs on a data folder, and wait until all of it is gone.

    Examples:

      raglan down

      raglan down --data ./handbook
    """
    folder = data_folder(data)
    pid = runfile.running_pid(folder)
    if pid is None:
        err.print(f"No mesh runs on {folder}.")
        return
    background.stop(folder, pid)
    out.print(f"Stopped the mesh on {folder}.")


def data_folder(data: Path | None) -> Path:
    """The data folder meant, as an absolute path."""
    return (data or default_data_dir()).expanduser().resolve()


def _refuse_taken_port(planned: mesh.Mesh, port: int) -> None:
    host = planned.url.removeprefix("http://").rpartition(":")[0].strip("[]")
    if not mesh.is_free(port, host):
        raise Failure(
            f"Port {port} is in use, so the gateway cannot listen on {format_address(host, port)}. "
            f"Choose another: raglan up --port {port + 1}"
        )
