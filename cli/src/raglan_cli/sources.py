"""`raglan sources`: the state of configured sources, and a sync on request."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

import typer
from raglan.client.transport import UNSYNCED
from rich.table import Table

from raglan_cli import screen
from raglan_cli.client import Gateway, JsonOption, UrlOption, find_url, segment
from raglan_cli.failure import Failure

app = typer.Typer(no_args_is_help=True, help="Sources: list, show, sync.")
_POLL_S: Final = 0.5
_SHOWN_ERROR: Final = 60

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The source.")]


@app.command("list")
def list_sources(url: UrlOption = None, json: JsonOption = False) -> None:
    """List the sources and the state of each; the ingester's sources file configures them."""
    with Gateway(find_url(url)) as gateway:
        found = gateway.call("GET", "/v1/sources")
    if json:
        screen.print_json(found)
        return
    if found["file_error"]:
        screen.err.print(
            f"{found['file_error']} The sources are those of before.", style="red", markup=False
        )
    columns = ("name", "kind", "collection", "state", "documents", "failed", "last success")
    table = Table(*columns, "next", "error", box=None)
    for each in found["sources"]:
        error = each["error"]
        shown = f"{error[:_SHOWN_ERROR]}..." if len(error) > _SHOWN_ERROR else error
        table.add_row(
            *(each["name"], each["kind"], each["collection"], each["status"]),
            *(str(each["documents"]), str(each["failed_documents"])),
            *(each["succeeded_at"] or "never", each["next_at"] or "now", shown),
        )
    screen.out.print(table if found["sources"] else "No source is configured.")


@app.command()
def show(name: NameArgument, url: UrlOption = None, json: JsonOption = False) -> None:
    """Show one source: its last sync, what was left out, and its error."""
    with Gateway(find_url(url)) as gateway:
        _show(gateway.call("GET", f"/v1/sources/{segment(name)}"), json)


@app.command()
def sync(
    name: NameArgument,
    accept_deletions: Annotated[
        bool,
        typer.Option(
            "--accept-deletions",
            help="Delete every document that is missing, however many there are.",
        ),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the end of the sync.")
    ] = True,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds to wait; the sync goes on after them.")
    ] = 3600,
    url: UrlOption = None,
    json: JsonOption = False,
) -> None:
    """Sync a source now.

    Examples:
      raglan sources sync handbook
      raglan sources sync handbook --accept-deletions
    """
    path = f"/v1/sources/{segment(name)}"
    params = {"accept_deletions": accept_deletions}
    with Gateway(find_url(url)) as gateway:
        found = gateway.call("POST", f"{path}/sync", params=params)
        until = time.monotonic() + timeout
        while wait and found["status"] in UNSYNCED and time.monotonic() < until:
            time.sleep(_POLL_S)
            found = gateway.call_patiently("GET", path)
    _show(found, json)
    if wait and found["status"] in UNSYNCED:
        raise Failure(
            f"{name} is still {found['status']} after {timeout:g} s (--timeout); it goes on. "
            f"`raglan sources show {name}` shows its state."
        )
    if wait and found["error"]:
        raise Failure(f"The sync of {name} failed.")


def _show(found: dict[str, Any], json: bool) -> None:
    if json:
        screen.print_json(found)
        return
    counts = ", ".join(f"{count} {what}" for what, count in found["last_sync"].items())
    lines = {
        "source": f"{found['name']} ({found['kind']}), into {found['collection']}",
        "state": found["status"],
        "documents": f"{found['documents']}, {found['failed_documents']} failed",
        "last sync": counts,
        "ended": found["finished_at"] or "never",
        "next": found["next_at"] or "now",
        "error": found["error"],
    }
    for label, value in lines.items():
        if value:
            screen.out.print(f"{label:10} {value}", markup=False, highlight=False)
    for reason in found["skipped_reasons"]:
        screen.out.print(f"left out   {reason}", markup=False, highlight=False)
