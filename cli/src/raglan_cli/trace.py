"""`raglan trace`: where the time of a request went."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from raglan_cli import waterfall
from raglan_cli.client import Gateway, JsonOption, UrlOption, find_url
from raglan_cli.failure import UsageFailure
from raglan_cli.screen import one_line, out, print_json
from raglan_cli.spantree import milliseconds

_ID: Final = re.compile(
    r"(?:[0-9a-f]{2}-)?([0-9a-f]{32})(?:-[0-9a-f]{16}-[0-9a-f]{2})?", re.IGNORECASE
)


def trace(
    trace_id: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="The id under an answer, or a whole traceparent."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Traces to list.")] = 20,
    route: Annotated[
        str | None, typer.Option("--route", help="Only of this, as /v1/query.")
    ] = None,
    status: Annotated[int | None, typer.Option("--status", help="Only with this status.")] = None,
    slower_ms: Annotated[
        float | None, typer.Option("--slower-ms", min=0, help="Only those that took so long.")
    ] = None,
    errors: Annotated[bool, typer.Option("--errors", help="Only those that failed.")] = False,
    degraded: Annotated[
        bool, typer.Option("--degraded", help="Only those in which a stage fell back.")
    ] = False,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Draw a trace; without an id, list the newest ones that are kept.

    Kept are those of errors, of degraded, hedged, retried and slow requests and a share of the
    rest. Any other can be drawn for two minutes.

    Examples:

      raglan trace

      raglan trace --degraded --slower-ms 500

      raglan trace 4bf92f3577b34da6a3ce929d0e0e4736 --json | jq '.spans[] | .name'
    """
    with Gateway(find_url(url)) as gateway:
        if trace_id is not None:
            found = gateway.call("GET", f"/v1/traces/{checked(trace_id)}")
        else:
            wanted = {
                "limit": limit,
                "route": route,
                "status": status,
                "min_duration_ms": slower_ms,
                "error": errors or None,
                "degraded": degraded or None,
            }
            given = {name: value for name, value in wanted.items() if value is not None}
            found = gateway.call("GET", "/v1/traces", params=given)
    if json:
        print_json(found)
    elif trace_id is not None:
        waterfall.show(out, found)
    else:
        _show_list(found["traces"])


def checked(given: str) -> str:
    """The trace id in `given`.

    Raises:
        UsageFailure: there is none.
    """
    match = _ID.fullmatch(given.strip())
    if match is None:
        raise UsageFailure(
            f"{one_line(given, 60)} is no trace id; it has 32 hexadecimal digits. "
            "Those that are kept: raglan trace"
        )
    return match[1].lower()


def _show_list(traces: Iterable[Mapping[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column, justify in (("when", "left"), ("status", "right"), ("ms", "right")):
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type] # literals
    table.add_column("what", overflow="ellipsis", no_wrap=True, ratio=1)
    table.add_column("kept as", overflow="ellipsis", no_wrap=True, ratio=1)
    table.add_column("trace", no_wrap=True, min_width=32)
    for each in traces:
        began = datetime.datetime.fromtimestamp(each["start_ns"] / 1e9).astimezone()
        table.add_row(
            f"{began:%H:%M:%S}",
            Text(str(each["status"] or ""), style="red" if each["error"] else ""),
            milliseconds(each["duration_ms"]),
            Text(one_line(each["name"] or each["route"], 60)),
            ", ".join(each["reasons"]),
            Text(each["trace_id"]),
        )
    if table.row_count:
        out.print(table)
    else:
        out.print("No such trace is kept. Any of the last two minutes: raglan trace ID")
