"""Display of a starting mesh: a live table in a terminal, one line an event elsewhere."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from raglan.settings import default_data_dir
from rich.console import Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from raglan_cli.reason import stage_of_start
from raglan_cli.runfile import MeshDocument, RestartEntry, ServiceEntry
from raglan_cli.screen import err, note, one_line, out
from raglan_cli.supervisor import State

SUGGESTIONS: Final = (
    "ingest docs/",
    'ask "What is this about?"',
    'ask "How do I delete a document?"',
    'search "retry budget"',
)
"""Commands to try first, without `raglan`; each works on this project's documentation."""

_STYLES: Final = {
    State.READY: "green",
    State.STARTING: "yellow",
    State.RESTARTING: "red",
    State.FAILED: "bold red",
    State.STOPPING: "yellow",
    State.STOPPED: "dim",
}


@contextmanager
def live_table(entries: Callable[[], Sequence[ServiceEntry]]) -> Iterator[None]:
    """While the block runs, show what `entries()` returns. Nothing outside a terminal."""
    if not err.is_terminal:
        yield
        return
    spinner = Spinner("dots", text="Starting the mesh")
    # Rich draws in a thread of its own; it only reads.
    with Live(
        get_renderable=lambda: Group(spinner, table(entries())),
        console=err,
        refresh_per_second=8,
        transient=True,
    ):
        yield


def table(entries: Sequence[ServiceEntry]) -> Table:
    """One line a process: service, state, seconds in it."""
    grid = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for heading in ("service", "state", "seconds", ""):
        grid.add_column(heading, justify="right" if heading == "seconds" else "left")
    for entry in entries:
        style = _STYLES.get(State(entry["state"]), "")
        state = Text(entry["state"], style=style)
        grid.add_row(_name(entry), state, f"{_seconds(entry):.1f}", Text(_doing(entry), "dim"))
    return grid


def line(entry: ServiceEntry) -> str:
    """One event of one process, as a sentence."""
    name, reason = _name(entry), one_line(entry["reason"] or "", 300)
    match State(entry["state"]):
        case State.READY:
            restarts = entry["restarts"]
            again = f" again (restart {restarts})" if restarts else ""
            return f"{name} is ready{again} after {entry['ready_after_s']:.1f} s"
        case State.RESTARTING:
            again = f"It is started again in {entry['wait_s']:g} s."
            return f"{name} crashed: {reason} {again} Its log: {entry['log']}"
        case State.FAILED:
            return f"{name} ended: {reason}"
        case state:
            return f"{name} is {state.value}"


def restarted(entry: RestartEntry) -> str:
    """One step of a rolling restart, as a sentence."""
    sentence = f"{entry['doing']} is restarted"
    return f"{sentence}: {entry['gap']}" if entry["gap"] else sentence


def show_ready(document: MeshDocument, seconds: float, *, detached: bool) -> None:
    """The one screen: where everything is, and what to try."""
    is_default = Path(document["data"]) == default_data_dir().expanduser().resolve()
    flags = "" if is_default else f" --url {document['url']}"
    rows = {
        "API": document["url"],
        "Try it": f"{document['url']}/docs",
        "Collection": "default",
        "Data": document["data"],
        "Logs": f"{document['data']}/logs",
    }
    if otlp := document.get("otlp"):
        rows["Spans (OTLP)"] = otlp
    grid = Table.grid(padding=(0, 3, 0, 2))
    for label, value in rows.items():
        grid.add_row(Text(label, style="dim"), value)
    note(
        Text.assemble("\n", ("Raglan is ready", "bold green"), f" after {seconds:.1f} s.\n"),
        console=out,
    )
    note(grid, console=out)
    where = "" if detached else ", in another terminal"
    note(f"\nNow try{where}\n", console=out, style="dim")
    if activation := _activation():
        note(Text.assemble("  ", (activation, "bold")), console=out)
    for command in SUGGESTIONS:
        note(Text.assemble("  ", (f"raglan {command}", "bold"), flags), console=out)
    in_front = out.is_terminal and not detached
    stop = "Ctrl-C" if in_front else f"raglan down --data {document['data']}"
    note(f"\n{stop} stops everything.\n", console=out, style="dim")


def _activation() -> str:
    """Return the command that puts `raglan` on the PATH; empty if it is there already."""
    script = Path(sys.prefix) / "bin" / "activate"
    if shutil.which("raglan") or not script.is_file():
        return ""
    return f"source {shlex.quote(str(script))}"


def _name(entry: ServiceEntry) -> str:
    replica = entry["replica"]
    return entry["service"] if replica == 1 else f"{entry['service']} {replica}"


def _doing(entry: ServiceEntry) -> str:
    starting = State(entry["state"]) is State.STARTING and entry["log"]
    return stage_of_start(Path(entry["log"])) if starting else ""


def _seconds(entry: ServiceEntry) -> float:
    if entry["state"] == State.READY and entry["ready_after_s"] is not None:
        return entry["ready_after_s"]
    return max(0.0, time.time() - entry["since"])
