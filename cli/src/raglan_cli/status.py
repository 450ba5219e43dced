"""`raglan status`: every process of the mesh, from the gateway and from mesh.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from raglan_cli import runfile
from raglan_cli.client import Gateway, JsonOption, UrlOption, find_url
from raglan_cli.failure import FAILED, Failure
from raglan_cli.runfile import MeshDocument
from raglan_cli.screen import err, one_line, out, print_json
from raglan_cli.up import DataOption, data_folder

_COLUMNS: Final = ("service", "address", "pid", "state", "engine", "model", "device", "version")
_FOLDED: Final = frozenset({"engine", "model"})
"""Columns dropped in a narrow terminal."""

_SUPERVISED: Final = ("pid", "restarts", "reason", "log")
"""Fields that only the supervisor knows."""

_PROBLEM_CHARS: Final = 1000

_GOOD: Final = frozenset({"serving", "ready"})


def status(data: DataOption = None, json: JsonOption = False, url: UrlOption = None) -> None:
    """Show each process of the mesh: service, address, pid, state, model, device, versions.

    Works also when the gateway is down, from what `raglan up` wrote. Exit status 1 when something
    does not serve.

    Examples:

      raglan status

      raglan status --json | jq '.services[] | select(.state != "serving")'
    """
    local = runfile.read_running(data_folder(data))
    address = find_url(url or (local["url"] if local else None))
    # Another mesh's processes are irrelevant to the named gateway.
    local = local if local and local["url"] == address else None
    seen, problem = _ask(address)
    if seen is None and local is None:
        raise Failure(problem)
    services = merge((seen or {}).get("services", []), local)
    document = {
        "url": address,
        "gateway_answers": seen is not None,
        "version": (seen or {}).get("version"),
        "data": local["data"] if local else None,
        "started_at": local["started_at"] if local else None,
        "otlp": local.get("otlp") if local else None,
        "services": services,
    }
    if json:
        print_json(document)
    else:
        _show(document)
        if seen is None:
            err.print(problem, style="red")
    if not all(service["state"] in _GOOD for service in services):
        raise SystemExit(FAILED)


def merge(seen: Iterable[Mapping[str, Any]], local: MeshDocument | None) -> list[dict[str, Any]]:
    """Merge the gateway's view with the supervisor's by address, and by pid where several have one.

    A process the gateway does not know (or all of them, when it is down) is taken from the
    supervisor alone. The supervisor's word counts for a process that is not running.
    """
    known = list(local["services"]) if local else []
    rows = [dict(row) for row in seen]
    for row in rows:
        same = [entry for entry in known if entry["address"] == row.get("address", "")]
        # Gateways share their address; only the one that answered is among `seen`.
        if entry := next(
            (e for e in same if e["pid"] == row.get("pid")), same[0] if same else None
        ):
            known.remove(entry)
            row |= {name: dict(entry)[name] for name in _SUPERVISED}
            if entry["state"] != "ready":
                row["state"] = entry["state"]
    for entry in known:
        names = ("service", "address", "state", *_SUPERVISED)
        rows.append({name: dict(entry)[name] for name in names})
    return rows


def _ask(url: str) -> tuple[dict[str, Any] | None, str]:
    try:
        with Gateway(url) as gateway:
            return gateway.call("GET", "/v1/status"), ""
    except Failure as failure:
        return None, failure.message


def _show(document: Mapping[str, Any]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in _COLUMNS:
        table.add_column(column, overflow="fold", no_wrap=column not in _FOLDED)
    for service in document["services"]:
        state = service["state"]
        cells = [Text(_cell(service, column)) for column in _COLUMNS]
        cells[_COLUMNS.index("state")].stylize("green" if state in _GOOD else "bold red")
        table.add_row(*cells)
    out.print(table)
    if document["otlp"]:
        out.print(f"Spans of others (OTLP) are received at {document['otlp']}.", style="dim")
    for service in document["services"]:
        if told := crash_of(service):
            out.print(told, style="red")
        for problem in service.get("problems", ()):
            out.print(one_line(problem, _PROBLEM_CHARS), style="red")
        if confinement := service.get("confinement"):
            out.print(confinement_of(confinement), style="dim")


def confinement_of(mechanisms: Sequence[str]) -> str:
    """Describe the confinement of an ingester's parsers in a sentence."""
    names = ", ".join(name.replace("_", " ") for name in mechanisms)
    if "landlock" in mechanisms:
        return f"Parsers are confined by {names}."
    return f"Parsers are confined by {names}; they can read the ingester's files: no Landlock here."


def crash_of(service: Mapping[str, Any]) -> str:
    """Describe a process's last crash and its state; empty if it never crashed."""
    if not service.get("reason"):
        return ""
    times = f"{service['restarts']} {'time' if service['restarts'] == 1 else 'times'}"
    reason = one_line(str(service["reason"]), 300)
    return (
        f"The {service['service']} at {service['address']} crashed {times}, last: {reason} "
        f"It is {service['state']}. Its log: {service['log']}"
    )


def _cell(service: Mapping[str, Any], column: str) -> str:
    value = service.get(column)
    if column == "model" and value:
        return str(value).rpartition("/")[2]
    if column == "state" and service.get("restarts"):
        return f"{value} (restarts: {service['restarts']})"
    return "" if value is None else str(value)
