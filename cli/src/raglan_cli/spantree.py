"""The spans of a trace as a tree, and what each of them is worth saying."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from raglan.telemetry import semconv

from raglan_cli.screen import counted, one_line

Span: TypeAlias = Mapping[str, Any]
_NOTE_CHARS: Final = 160


@dataclass(frozen=True, slots=True)
class Note:
    """A few words about a span, and how rich should show them."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Placed:
    """A span at its place in the tree."""

    span: Span
    depth: int


def placed(spans: Sequence[Span]) -> list[Placed]:
    """Every span once, each after its parent; those whose parent is not here come as roots."""
    here = {span["span_id"] for span in spans}
    children: dict[str | None, list[Span]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: (span["start_ns"], -span["end_ns"])):
        parent = _parent(span, here)
        is_root = parent not in here or parent == span["span_id"]
        children[None if is_root else parent].append(span)
    order: list[Placed] = []
    seen: set[str] = set()
    # What is left after the roots are parents of each other, which only a forgery can be.
    for root in (*children[None], *spans):
        waiting = [Placed(root, 0)]
        while waiting:
            each = waiting.pop()
            if (span_id := each.span["span_id"]) not in seen:
                seen.add(span_id)
                order.append(each)
                below = reversed(children.get(span_id, ()))
                waiting += [Placed(child, each.depth + 1) for child in below]
    return order


def _parent(span: Span, here: set[str]) -> str | None:
    """Of a batch that lies in another request's trace: the span here that it worked for."""
    if span.get("trace_id"):
        return next((link["span_id"] for link in span["links"] if link["span_id"] in here), None)
    parent: str | None = span["parent_span_id"]
    return parent


def below(spans: Sequence[Span], root: Span) -> Iterator[Span]:
    """The spans under `root`."""
    depth: int | None = None
    for each in placed(spans):
        if each.span["span_id"] == root["span_id"]:
            depth = each.depth
        elif depth is not None and each.depth > depth:
            yield each.span
        elif depth is not None:
            return


def duration_ms(span: Span) -> float:
    """Return the span's duration, never negative."""
    return max(0, int(span["end_ns"]) - int(span["start_ns"])) / 1e6


def number(span: Span, name: str) -> float | None:
    """An attribute that is a number, or None."""
    value = span["attributes"].get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def milliseconds(value: float | None) -> str:
    """Three digits, or all before the point; empty for None."""
    if value is None:
        return ""
    for limit, decimals in ((10, 2), (100, 1)):
        if value < limit:
            return f"{value:.{decimals}f}"
    return f"{value:,.0f}"


def notes(span: Span) -> list[Note]:
    """Return the notes on a span, errors first."""
    return [note for notes_of in _NOTES for note in notes_of(span, span["attributes"])]


def attempt(span: Span) -> str:
    """Return "first", "retry" or "hedge" for the span of an attempt, else ""."""
    return str(span["attributes"].get(semconv.ATTEMPT, ""))


def _failure(span: Span, attributes: Mapping[str, Any]) -> Iterable[Note]:
    if span["status"] == "error":
        said = span.get("status_message") or attributes.get(semconv.ERROR_TYPE) or "failed"
        yield Note(one_line(str(said), _NOTE_CHARS), "red")


def _fallback(span: Span, attributes: Mapping[str, Any]) -> Iterable[Note]:
    for event in span["events"]:
        if event["name"] == semconv.DEGRADED:
            said = event["attributes"]
            stage, reason = said.get(semconv.STAGE, ""), said.get(semconv.DEGRADED_REASON, "")
            fallback = said.get(semconv.DEGRADED_FALLBACK, "")
            words = f"{stage} fell back to {fallback}: {reason}"
            yield Note(one_line(words, _NOTE_CHARS), "yellow")
        elif event["name"] == semconv.RETRY:
            yield Note("tried again", "yellow")


def _call(span: Span, attributes: Mapping[str, Any]) -> Iterable[Note]:
    why = attempt(span)
    if why in ("retry", "hedge"):
        yield Note(why, "yellow")
    if attributes.get(semconv.ATTEMPT_OVERTAKEN):
        yield Note("overtaken", "yellow")
    breaker = attributes.get(semconv.BREAKER, "closed")
    if breaker != "closed":
        yield Note(one_line(f"breaker {breaker}", 40), "yellow")
    if why and (peer := attributes.get(semconv.PEER)):
        yield Note(one_line(str(peer), 60), "dim")


def _work(span: Span, attributes: Mapping[str, Any]) -> Iterable[Note]:
    parts = (
        ("queue", semconv.QUEUE_MS),
        ("tokenise", semconv.TOKENIZE_MS),
        ("compute", semconv.COMPUTE_MS),
    )
    told = [
        f"{name} {milliseconds(value)}"
        for name, key in parts
        if (value := number(span, key)) is not None and (value > 0 or name != "tokenise")
    ]
    # A stage repeats what the service behind it says.
    if told and semconv.STAGE not in attributes:
        yield Note(" ".join(told))
    if hits := number(span, semconv.CACHE_HITS):
        yield Note(f"{hits:.0f} from the cache")


def _batch(span: Span, attributes: Mapping[str, Any]) -> Iterable[Note]:
    if span["name"] == semconv.BATCH and (size := number(span, semconv.BATCH_SIZE)):
        requests = number(span, semconv.BATCH_REQUESTS) or len(span["links"])
        yield Note(f"{counted(round(size), 'text')} of {counted(round(requests), 'request')}")
    elif span["links"]:
        yield Note(f"linked to {counted(len(span['links']), 'span')}", "dim")


def _deadline(span: Span, attributes: Mapping[str, Any]) -> Iterable[Note]:
    left_ms = number(span, semconv.DEADLINE_REMAINING_MS)
    if left_ms is not None and (semconv.STAGE in attributes or span["status"] == "error"):
        yield Note(f"{milliseconds(left_ms)} ms were left", "dim")


_NOTES: Final = (_failure, _fallback, _call, _work, _batch, _deadline)
