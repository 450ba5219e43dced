"""A trace drawn in a terminal: a line a span, its time as a bar."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from raglan.telemetry import semconv
from rich.text import Text

from raglan_cli.screen import SafeConsole, one_line
from raglan_cli.spantree import Placed, Span, duration_ms, milliseconds, notes, number, placed

MOST_LINES: Final = 300
"""Spans drawn of one trace; --json has all."""

_WIDE: Final = 110
"""Columns from which notes stand beside the bars, not below."""

_NARROW: Final = 56
"""Columns below which there are no bars."""

_DEEPEST: Final = 10
"""Steps of indentation."""

_MS_WIDTH: Final = 8
_SERVICE_WIDTH: Final = 10
_STYLES: Final = {
    "gateway": "cyan",
    "embedder": "green",
    "retriever": "magenta",
    "reranker": "yellow",
    "generator": "blue",
    "ingester": "bright_green",
}
_BLOCKS: Final = ("░", "█")
_ASCII: Final = (".", "#")


def show(console: SafeConsole, trace: Mapping[str, Any]) -> None:
    """Print the trace: what it is, its spans, what is missing."""
    show_head(console, trace)
    own = [span for span in trace["spans"] if not span.get("trace_id")] or trace["spans"]
    if own:
        drawing = _Drawing(console, own)
        lines = placed(trace["spans"])
        for line in lines[:MOST_LINES]:
            drawing.draw(line)
        if len(lines) > MOST_LINES:
            _dim(console, f"{len(lines) - MOST_LINES} more spans; --json shows all.")
        if drawing.queued:
            queue, rest = drawing.blocks
            _dim(console, f"{queue} in the queue  {rest} the rest")
    for sentence in _missing(trace):
        console.print(Text(sentence, style="yellow"))


def show_head(console: SafeConsole, trace: Mapping[str, Any]) -> None:
    """Print which trace it is and how its request went."""
    began = datetime.datetime.fromtimestamp(trace["start_ns"] / 1e9).astimezone()
    status = f"  {trace['status']}" if trace["status"] else ""
    kept = f"  kept as {', '.join(trace['reasons'])}" if trace["reasons"] else ""
    console.print(
        Text.assemble(
            (one_line(trace["name"] or trace["route"] or "a trace", 80), "bold"),
            (status, "red" if trace["error"] else "green"),
            f"  {milliseconds(trace['duration_ms'])} ms  {began:%Y-%m-%d %H:%M:%S}{kept}",
        )
    )
    _dim(console, f"trace {trace['trace_id']}")


class _Drawing:
    """The columns of one trace."""

    def __init__(self, console: SafeConsole, spans: Sequence[Span]) -> None:
        self.blocks = _BLOCKS if (console.encoding or "").startswith("utf") else _ASCII
        self.queued = False
        """True if a bar shows time in a queue."""
        self._console = console
        self._start_ns = min(span["start_ns"] for span in spans)
        self._total_ns = max(1, max(span["end_ns"] for span in spans) - self._start_ns)
        width = console.width
        self._beside = width >= _WIDE
        self._with_service = width >= _NARROW
        room = width - _MS_WIDTH - 2 - (_SERVICE_WIDTH + 1) * self._with_service
        self._name_width = max(12, min(36, room if not self._with_service else room // 2))
        left = room - self._name_width - 1
        self._bar_width = (
            min(60, left * 2 // 5 if self._beside else left) if self._with_service else 0
        )

    def draw(self, line: Placed) -> None:
        """Print one span."""
        span = line.span
        style = _STYLES.get(span["service"], "white")
        text = Text()
        if self._with_service:
            text.append(_fit(one_line(span["service"], 40), _SERVICE_WIDTH) + " ", style)
        indent = "  " * min(line.depth, _DEEPEST)
        failed = span["status"] == "error"
        text.append(_fit(indent + _name(span), self._name_width), "red" if failed else "")
        text.append(f" {milliseconds(duration_ms(span)):>{_MS_WIDTH}}")
        if self._bar_width:
            text.append(" ").append_text(self._bar(span, "red" if failed else style))
        said = notes(span)
        if self._beside and said:
            text.append("  ").append_text(_joined(said))
            text.truncate(self._console.width, overflow="ellipsis")
        text.rstrip()
        self._console.print(text)
        if said and not self._beside:
            below = Text(" " * (min(line.depth, _DEEPEST) * 2 + 2)).append_text(_joined(said))
            below.truncate(max(20, self._console.width), overflow="ellipsis")
            self._console.print(below)

    def _bar(self, span: Span, style: str) -> Text:
        """Its time within the trace's. Clocks of processes differ: nothing is drawn outside."""
        cells = self._bar_width
        first = self._cell(span["start_ns"], cells - 1)
        last = max(first + 1, self._cell(span["end_ns"], cells))
        queue, rest = self.blocks
        share = (number(span, semconv.QUEUE_MS) or 0) / max(1e-6, duration_ms(span))
        queued = min(last - first, round((last - first) * share))
        self.queued |= queued > 0
        bar = Text(" " * first)
        bar.append(queue * queued, style).append(rest * (last - first - queued), style)
        bar.append(" " * (cells - last))
        return bar

    def _cell(self, at_ns: int, most: int) -> int:
        share: float = (at_ns - self._start_ns) / self._total_ns
        return min(most, max(0, round(share * self._bar_width)))


def _name(span: Span) -> str:
    """Without the package: "EmbedderService/Embed"."""
    return one_line(str(span["name"]).removeprefix("raglan.v1."), 80)


def _fit(text: str, width: int) -> str:
    """`text` in exactly so many characters."""
    plain = text if len(text) <= width else text[: width - 1] + "~"
    return plain.ljust(width)


def _joined(said: Iterable[Any]) -> Text:
    return Text("  ").join([Text(note.text, note.style) for note in said])


def _missing(trace: Mapping[str, Any]) -> Iterable[str]:
    if trace.get("missing"):
        yield f"Did not return their spans: {', '.join(trace['missing'])}."
    if trace["dropped"]:
        yield f"{trace['dropped']} more spans were dropped (RAGLAN_GATEWAY_TRACE_MAX_SPANS)."
    elif not trace["complete"] and not trace.get("missing"):
        yield "Not all of it is here: steps are still running, or their spans were forgotten."


def _dim(console: SafeConsole, text: str) -> None:
    console.print(Text(text, style="dim"))
