"""The commands of `raglan`, and how each ends."""

from __future__ import annotations

import io
import sys
from importlib.metadata import version
from typing import Annotated

import typer
from raglan.settings import SettingsError

from raglan_cli import (
    ask,
    backup,
    bulk,
    chunks,
    documents,
    evaluate,
    ingest,
    keys,
    parity,
    plan,
    restart,
    screen,
    sources,
    status,
    stored,
    trace,
    up,
    verify,
)
from raglan_cli.failure import USAGE, Failure

app = typer.Typer(
    name="raglan",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(up.up)
app.command()(ingest.ingest)
app.command()(bulk.bulk)
app.command()(chunks.chunks)
app.command("list")(documents.list_documents)
app.command()(documents.delete)
app.command()(ask.ask)
app.command()(ask.search)
app.command("eval")(evaluate.evaluate)
app.add_typer(parity.app, name="parity")
app.add_typer(keys.app, name="keys")
app.add_typer(stored.app, name="documents")
app.add_typer(sources.app, name="sources")
app.command()(plan.plan)
app.command()(status.status)
app.command()(trace.trace)
app.command()(verify.verify)
app.command()(restart.restart)
app.command()(backup.backup)
app.command()(backup.restore)
app.command()(up.down)


def _show_version(wanted: bool) -> None:
    if wanted:
        screen.out.print(f"raglan {version('raglan-cli')}")
        raise typer.Exit


@app.callback()
def raglan(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Answers from your documents, with sources.

    Start with: raglan up. Then, in another terminal: raglan ingest docs/, and raglan ask "...".
    """


def run() -> None:
    """Run the command line; a `Failure` becomes its sentence and its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack characters that a text has
            stream.reconfigure(errors="backslashreplace")
    try:
        _run()
    except Failure as failure:
        if "--json" in sys.argv:
            screen.print_json(failure.document)
        screen.err.print(failure.message, style="red")
        raise SystemExit(failure.status) from None


def _run() -> None:
    try:
        app()
    except SettingsError as error:  # also what every command needs, such as a data folder
        raise Failure(str(error), status=USAGE) from None
