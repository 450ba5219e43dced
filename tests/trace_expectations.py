"""What the trace of a request must contain, derived from how the request went for its caller.

`problems` compares the two and names every difference; `edges` are the calls that a trace shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from raglan.telemetry import semconv

Span: TypeAlias = dict[str, Any]
Trace: TypeAlias = dict[str, Any]

CALLS: Final = {
    "embed": ("embedder", "raglan.v1.EmbedderService/Embed"),
    "retrieve": ("retriever", "raglan.v1.RetrieverService/Search"),
    "rerank": ("reranker", "raglan.v1.RerankerService/Rerank"),
    "generate": ("generator", "raglan.v1.GeneratorService/Generate"),
    "cite": ("embedder", "raglan.v1.EmbedderService/Embed"),
}
"""Stage -> the service that it calls, and how."""

ENGINES: Final = {
    "embedder": "batch",
    "reranker": "batch",
    "retriever": "index",
    "generator": "chat",
}
"""Service -> what the spans of its engine are called, up to the first "." or space."""

DECLARED: Final = frozenset(
    [("gateway", service) for service in (*ENGINES, "ingester")]
    + [("ingester", "embedder"), ("ingester", "retriever")]
    + [(service, f"{service}: {engine}") for service, engine in ENGINES.items()]
)
"""Who calls whom: gateway -> service, service -> service, service -> engine."""


@dataclass(frozen=True)
class Outcome:
    """A request to `/v1/search` or `/v1/query` as its caller saw it end."""

    kind: str
    trace_id: str
    span_id: str
    """Of the caller's own span, 16 hex digits."""
    path: str
    body: Mapping[str, Any]
    status: int | None
    """None where the caller left before the reply began."""
    left: bool = False
    """Whether the caller did not wait for the end."""
    error: str = ""
    """The `type` of the error that the reply, or the stream, ended in."""
    degraded: Sequence[str] = ()
    """Stages that the reply says fell back."""
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    ends_in: str = ""
    """The stage in which it fails, if it fails; "" where that cannot be known."""

    @property
    def failed(self) -> bool:
        """Whether it did not come to its end."""
        return self.left or bool(self.error)

    @property
    def stages(self) -> tuple[str, ...]:
        """Those that it passes when all goes well."""
        return (
            *(("embed",) if self.body.get("mode") != "lexical" else ()),
            "retrieve",
            *(("rerank",) if self.body.get("rerank", True) else ()),
            *(("generate",) if self.path == "/v1/query" else ()),
            # Only where words alone do not show what of the answer is supported.
            *(("cite",) if "cite" in self.timings_ms else ()),
        )


def problems(outcome: Outcome, trace: Trace) -> list[str]:
    """What is missing, wrong or foreign in `trace`; empty when it is as it must be."""
    tree = _Tree(trace["spans"])
    return [
        *_whole(trace),
        *tree.strangers(),
        *_root(outcome, trace, tree),
        *_inside(outcome, tree),
    ]


def edges(spans: Sequence[Span]) -> set[tuple[str, str]]:
    """Who called whom, in the form of `DECLARED`."""
    tree = _Tree(spans)
    found = set()
    for span in spans:
        for caller in tree.callers(span):
            if span["service"] != caller["service"]:
                found.add((caller["service"], span["service"]))
            elif (engine := _engine(span)) is not None:
                found.add((caller["service"], engine))
    return found


def job_problems(trace: Trace) -> list[str]:
    """The same of an upload that went well, once its job has ended."""
    tree = _Tree(trace["spans"])
    entries = [(span["service"], span["name"]) for span in tree.entries()]
    found = [*_whole(trace), *tree.strangers()]
    if entries != [("gateway", "POST /v1/collections/{name}/documents")]:
        found.append(f"first spans {entries}")
    if semconv.INGEST_JOB not in {span["name"] for span in trace["spans"]}:
        found.append("no job")
    return found + [f"{_name(s)} is {s['status']}" for s in trace["spans"] if s["status"] != "ok"]


def uncovered(outcome: Outcome) -> float:
    """Share of `timings_ms.total` that no stage accounts for; negative where they overlap."""
    accounted = ("admit", *CALLS)
    stages = sum(ms for name, ms in outcome.timings_ms.items() if name in accounted)
    return 1 - stages / outcome.timings_ms["total"]


class _Tree:
    """The spans of one trace by their places."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self.spans = spans
        self._by_id = {span["span_id"]: span for span in spans}
        self._children: dict[str | None, list[Span]] = {}
        for span in spans:
            self._children.setdefault(span["parent_span_id"], []).append(span)

    def under(self, parent: Span, **having: str) -> list[Span]:
        """Its children that have these fields."""
        return [
            span
            for span in self._children.get(parent["span_id"], ())
            if all(span[name] == value for name, value in having.items())
        ]

    def callers(self, span: Span) -> list[Span]:
        """Its parent; of a batch, each span that it worked for."""
        of_batch = span["name"] == semconv.BATCH
        ids = {link["span_id"] for link in span["links"]} if of_batch else {span["parent_span_id"]}
        return [self._by_id[id_] for id_ in ids if id_ in self._by_id]

    def batches(self, server: Span) -> list[Span]:
        """The device batches that served a call."""
        return [
            span
            for span in self.spans
            if span["name"] == semconv.BATCH
            and any(link["span_id"] == server["span_id"] for link in span["links"])
        ]

    def entries(self) -> list[Span]:
        """Spans whose parent is not here, batches that belong to others as well left out."""
        return [
            span
            for span in self.spans
            if span["parent_span_id"] not in self._by_id and "trace_id" not in span
        ]

    def strangers(self) -> Iterator[str]:
        """What does not belong here."""
        for span in self.spans:
            if "trace_id" in span and not self.callers(span):
                yield f"{_name(span)} of another request"
        for entry in self.entries():
            if entry["service"] != "gateway" or entry["kind"] != "server":
                yield f"{_name(entry)} without its parent"
        for service, called in edges(self.spans) - DECLARED:
            yield f"an edge {service} -> {called}, which is not declared"


def _whole(trace: Trace) -> Iterator[str]:
    if not trace["complete"] or trace["missing"] or trace["dropped"]:
        yield "it says that it is not complete"
    for span in trace["spans"]:
        if span["end_ns"] < span["start_ns"]:
            yield f"{_name(span)} ends before it begins"


def _root(outcome: Outcome, trace: Trace, tree: _Tree) -> Iterator[str]:
    roots = [span for span in tree.entries() if span["kind"] == "server"]
    if len(roots) != 1:
        yield f"{len(roots)} first spans"
        return
    (root,) = roots
    # A caller who leaves before the reply began is 499; one who leaves in a stream had its 200.
    status = outcome.status or 499
    wrong = outcome.left or status >= 499 or (status == 200 and bool(outcome.error))
    error = "cancelled" if outcome.left else outcome.error
    if root["parent_span_id"] != outcome.span_id:
        yield "the first span is no child of the caller's"
    if root["name"] != f"POST {outcome.path}":
        yield f"the first span is called {root['name']}"
    yield from _status("the first span", root, error if wrong else "")
    # Of a stream the head may be on its way when its caller leaves.
    may = (499, 200) if status == 499 and outcome.body.get("stream") else (status,)
    if root["attributes"][semconv.HTTP_STATUS] not in may:
        yield f"HTTP status {root['attributes'][semconv.HTTP_STATUS]} instead of {status}"
    fell = _fell_back(tree)
    if not outcome.failed and Counter(fell) != Counter(outcome.degraded):
        yield f"events of degradation for {fell} instead of {list(outcome.degraded)}"
    attempts = Counter(span["attributes"].get(semconv.ATTEMPT) for span in tree.spans)
    facts = {
        "error": wrong,
        "degraded": bool(fell),
        "hedged": attempts["hedge"] > 0,
        "retried": attempts["retry"] > 0,
    }
    for fact, holds in facts.items():
        if bool(root["attributes"].get(f"raglan.{fact}")) != holds and fact != "error":
            yield f"{fact} on the first span is not {holds}"
        if (fact in trace["reasons"]) != holds:
            yield f"{fact} as a reason to keep the trace is not {holds}"


def _fell_back(tree: _Tree) -> list[str]:
    events = [event for span in tree.spans for event in span["events"]]
    return [
        each["attributes"][semconv.STAGE] for each in events if each["name"] == semconv.DEGRADED
    ]


def _inside(outcome: Outcome, tree: _Tree) -> Iterator[str]:
    """Stages, and below them attempts, services and engines."""
    (root,) = tree.entries()[:1] or ({"span_id": ""},)
    stages = [span for span in tree.under(root) if semconv.STAGE in span["attributes"]]
    names = [span["name"] for span in stages]
    if outcome.status == 422:
        if len(tree.spans) > 1:
            yield "more than one span of a request that was refused"
        return
    yield from _order(outcome, names)
    # A reply that is an error does not say what had fallen back before.
    degraded = _fell_back(tree) if outcome.failed else outcome.degraded
    for span in stages:
        last = outcome.failed and span is stages[-1]
        error = None if span["name"] in degraded else ""
        if last:
            error = "cancelled" if outcome.left else outcome.error
        yield from _status(f"stage {span['name']}", span, error)
        yield from _attempts(outcome, tree, span)
    placed = sum(1 for stage in stages for _ in tree.under(stage))
    # Once a stage has failed, the ingester is asked for revisions, outside of all stages.
    attempts = sum(
        semconv.ATTEMPT in span["attributes"] and not span["name"].endswith("/GetRevisions")
        for span in tree.spans
    )
    if placed != attempts:
        yield f"{attempts - placed} attempts outside of their stages"


def _order(outcome: Outcome, names: Sequence[str]) -> Iterator[str]:
    expected = outcome.stages
    # How far it had come when the time was up or its caller left, nobody was told. That the last
    # stage here is the last there was shows in its status.
    unknown = outcome.left or outcome.error == "deadline_exceeded" or not outcome.ends_in
    if outcome.failed and unknown and names:
        expected = expected[: len(names)]
    elif outcome.failed and outcome.ends_in in expected:
        expected = expected[: expected.index(outcome.ends_in) + 1]
    if tuple(names) != expected:
        yield f"stages {list(names)} instead of {list(expected)}"
    timed = [name for name in CALLS if name in outcome.timings_ms]
    if outcome.timings_ms and timed != [name for name in CALLS if name in names]:
        yield f"times of {timed}, but spans of {list(names)}"


def _attempts(outcome: Outcome, tree: _Tree, stage: Span) -> Iterator[str]:
    name = stage["name"]
    service, method = CALLS[name]
    attempts = tree.under(stage)
    if strange := [a for a in attempts if (a["name"], a["kind"]) != (method, "client")]:
        yield f"{_name(strange[0])} directly under stage {name}"
        return
    kinds = Counter(each["attributes"][semconv.ATTEMPT] for each in attempts)
    if attempts and kinds["first"] != 1:
        yield f"{kinds['first']} first attempts in stage {name}"
    answered = [each for each in attempts if each["status"] == "ok"]
    # Two may be answered in the same moment.
    if not (stage["status"] == "ok") <= len(answered) <= (stage["status"] == "ok") + kinds["hedge"]:
        yield f"{len(answered)} answered attempts in stage {name} ({stage['status']})"
    for attempt in attempts:
        yield from _attempt(outcome, tree, attempt, service)


def _attempt(outcome: Outcome, tree: _Tree, attempt: Span, service: str) -> Iterator[str]:
    said = attempt["attributes"][semconv.RPC_STATUS]
    what = f"attempt at the {service}"
    overtaken = attempt["attributes"].get(semconv.ATTEMPT_OVERTAKEN, False)
    expected = "ok" if said == "OK" else "unset" if overtaken else "error"
    if attempt["status"] != expected:
        yield f"{what} is {attempt['status']} with {said}"
    if said == "CANCELLED" and not (overtaken or outcome.left):
        # Nobody left and nobody was faster.
        yield f"{what} is CANCELLED, and no one left"
    servers = tree.under(attempt)
    if strange := [s for s in servers if (s["service"], s["kind"]) != (service, "server")]:
        yield f"{_name(strange[0])} under an {what}"
        return
    arrived = said in ("OK", "NOT_FOUND") or attempt["attributes"].get(semconv.REPLIES, 0) > 0
    if len(servers) > 1 or (arrived and not servers):
        yield f"{len(servers)} calls served for an {what} ({said})"
    for server in servers:
        yield from _served(outcome, tree, server, said)


def _served(outcome: Outcome, tree: _Tree, server: Span, said: str) -> Iterator[str]:
    service = server["service"]
    status = server["attributes"].get(semconv.RPC_STATUS)
    # What the caller no longer waits for may be done, or be found out of time, before it is told.
    # A stream that breaks on the way is UNAVAILABLE here and a reader who left there.
    may = {
        "CANCELLED": ("CANCELLED", "OK", "DEADLINE_EXCEEDED"),
        "DEADLINE_EXCEEDED": ("DEADLINE_EXCEEDED", "CANCELLED", "OK"),
        "UNAVAILABLE": ("CANCELLED", "UNAVAILABLE"),
    }.get(said, (said,))
    if status not in may:
        yield f"the {service} says {status}, its caller {said}"
    if server["status"] != ("ok" if status == "OK" else "error"):
        yield f"the {service} is {server['status']} with {status}"
    engine = ENGINES[service]
    if engine == "batch":
        steps = tree.batches(server)
    else:
        steps = [span for span in tree.under(server) if _engine(span)]
    if status != "OK":
        return
    # Both legs are one search; then the passages are read.
    least = 2 if service == "retriever" else 1
    if server["attributes"].get(semconv.CACHE_MISSES) == 0:
        least = 0
    if len(steps) < least:
        yield f"{len(steps)} {engine} under the {service} instead of {least}"
    if any(step["status"] != "ok" for step in steps):
        yield f"a {engine} of the {service} is not ok"


def _status(what: str, span: Span, error: str | None) -> Iterator[str]:
    """Whether `span` ended in `error`; "" is none, None is any."""
    found = span["attributes"].get(semconv.ERROR_TYPE, "")
    if span["status"] != ("ok" if error == "" else "error"):
        yield f"{what} is {span['status']}, its error {error or 'any' if error != '' else 'none'}"
    elif error is not None and found != error:
        yield f"{what} ended in {found or 'nothing'} instead of {error or 'nothing'}"


def _engine(span: Span) -> str | None:
    service = span["service"]
    name = span["name"].replace(".", " ").split(" ")[0]
    return f"{service}: {name}" if ENGINES.get(service) == name else None


def _name(span: Span) -> str:
    return f"{span['service']} {span['name']}"
