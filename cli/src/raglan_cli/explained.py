"""The report of `raglan ask --trace`: stages, passages and waterfall."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from raglan.telemetry import semconv
from rich.table import Table
from rich.text import Text

from raglan_cli import waterfall
from raglan_cli.client import Gateway, Refused
from raglan_cli.screen import SafeConsole, one_line
from raglan_cli.spantree import Span, attempt, below, duration_ms, milliseconds, number

_TRIES: Final = 8
_PAUSE_S: Final = 0.15
"""The span of the request itself ends a moment after the last byte of its answer."""

_MOST_PASSAGES: Final = 30
_NUMBERS_WIDTH: Final = 34
"""Columns of a passage's places and scores."""


def fetch(gateway: Gateway, trace_id: str) -> dict[str, Any]:
    """The trace of an answer that has just come.

    Raises:
        Refused: there is none.
    """
    for left in reversed(range(_TRIES)):
        try:
            found: dict[str, Any] = gateway.call("GET", f"/v1/traces/{trace_id}")
        except Refused as refused:
            if refused.http != 404 or not left:
                raise
        else:
            if not left or any(_is_request(span) for span in found["spans"]):
                return found
        time.sleep(_PAUSE_S)
    raise AssertionError("the last try returns or raises")


def show(console: SafeConsole, reply: Mapping[str, Any], trace: Mapping[str, Any]) -> None:
    """Print where the time of `reply` went and what reranking did."""
    spans: Sequence[Span] = trace["spans"]
    stages = [span for span in spans if semconv.STAGE in span["attributes"]]
    if stages:
        console.print()
        console.print(_stages(stages, spans))
    if passages := reply.get("passages"):
        console.print()
        console.print(_passages(passages, stages, console.width))
    console.print()
    waterfall.show(console, trace)


def _stages(stages: Iterable[Span], spans: Sequence[Span]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("stage", no_wrap=True)
    for column in ("ms", "queue", "compute", "left"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("calls", ratio=1)
    for span in stages:
        name = one_line(str(span["attributes"][semconv.STAGE]), 20)
        table.add_row(
            Text(name, "red" if span["status"] == "error" else ""),
            milliseconds(duration_ms(span)),
            milliseconds(number(span, semconv.QUEUE_MS)),
            milliseconds(number(span, semconv.COMPUTE_MS)),
            milliseconds(number(span, semconv.DEADLINE_REMAINING_MS)),
            Text(_calls(below(spans, span))),
        )
    return table


def _calls(spans: Iterable[Span]) -> str:
    """List the attempts: "first, hedge (overtaken)", "first UNAVAILABLE, retry"."""
    told = []
    for span in spans:
        if not (why := attempt(span)):
            continue
        status = str(span["attributes"].get(semconv.RPC_STATUS, ""))
        overtaken = span["attributes"].get(semconv.ATTEMPT_OVERTAKEN)
        how = " overtaken" if overtaken else "" if status in ("", "OK") else f" {status}"
        told.append(one_line(why + how, 60))
    return ", ".join(
        f"{what} x{times}" if times > 1 else what for what, times in Counter(told).items()
    )


def _passages(passages: Sequence[Mapping[str, Any]], stages: Iterable[Span], width: int) -> Table:
    """Tabulate the passages with their ranks before and after reranking.

    Those that reranking removed from the answer have an id only.
    """
    before, scores = _before(stages)
    if not before:
        before = [each["chunk_id"] for each in sorted(passages, key=_fused, reverse=True)]
        scores = {each["chunk_id"]: each["scores"].get("fused") for each in passages}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("before", "after", "fused", "rerank"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("passage")
    room = max(20, width - _NUMBERS_WIDTH)
    for passage in passages:
        chunk_id = passage["chunk_id"]
        place = before.index(chunk_id) + 1 if chunk_id in before else None
        found = scores.get(chunk_id, passage["scores"].get("fused"))
        title = passage.get("title") or passage["document_id"]
        snippet = one_line(f"{title}: {passage['text']}", room)
        rerank = _score(passage["scores"].get("rerank"))
        table.add_row(str(place or ""), str(passage["rank"]), _score(found), rerank, Text(snippet))
    shown = {passage["chunk_id"] for passage in passages}
    for place, chunk_id in enumerate(before[:_MOST_PASSAGES], 1):
        if chunk_id not in shown:
            table.add_row(
                str(place), "-", _score(scores.get(chunk_id)), "", Text(one_line(chunk_id, room)),
                style="dim",
            )  # fmt: skip
    return table


def _before(stages: Iterable[Span]) -> tuple[list[str], dict[str, float | None]]:
    """Read the retriever's ranking and scores from the spans."""
    for span in stages:
        attributes = span["attributes"]
        ids: list[str] = []
        prefix = f"{semconv.RETRIEVED}."
        while (id_ := attributes.get(f"{prefix}{len(ids)}.document.id")) is not None:
            ids.append(str(id_))
        if ids:
            named = enumerate(ids)
            return ids, {id_: attributes.get(f"{prefix}{n}.document.score") for n, id_ in named}
    return [], {}


def _fused(passage: Mapping[str, Any]) -> float:
    scores = passage["scores"]
    found = (scores.get(name) for name in ("fused", "dense", "lexical"))
    return next((float(score) for score in found if score is not None), 0.0)


def _score(score: float | None) -> str:
    return "" if score is None else f"{score:.3f}"


def _is_request(span: Span) -> bool:
    return bool(span["service"] == "gateway" and span["kind"] == "server")
