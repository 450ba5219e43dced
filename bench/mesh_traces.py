"""Completeness and correctness of traces: `make bench-mesh ONLY=traces`.

2,000 requests of every kind, some to fail, some whose caller leaves; what the trace of each must
contain follows from how it went for its caller (`trace_expectations`). The index is real, embedder,
reranker and generator are null, two replicas of each. A hundred more are answered by a mock LLM,
whose citations the gateway compares with what they quote.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import mock_llm
from load import percentile
from report import Row
from trace_expectations import DECLARED, edges, uncovered
from trace_requests import Kind, Phase, Result, mixed, phases

UPLOADS: Final = 2
DOCUMENTS: Final = 40
_WITHIN: Final = 0.03
_SHOWN: Final = 5

ALONE: Final = Phase(
    (
        Kind("search", 100, "/v1/search"),
        Kind("query", 60, "/v1/query"),
        Kind("stream", 60, "/v1/query", {"stream": True}),
    )
)
CITED: Final = Phase(
    (
        Kind("cited", 50, "/v1/query"),
        Kind("cited", 50, "/v1/query", {"stream": True}),
    )
)


def traces() -> list[Row]:
    """Complete traces, the edges that they show, and what their stages leave of the total."""
    with tempfile.TemporaryDirectory() as folder, mixed(Path(folder)) as requests:
        uploads = [requests.upload(DOCUMENTS) for _ in range(UPLOADS)]
        asked = [result for phase in phases() for result in asyncio.run(requests.run(phase))]
        alone = asyncio.run(requests.run(ALONE, callers=1))
    asked += _cited()
    _tell([*uploads, *asked, *alone])
    return [
        *_complete(asked),
        *_edges([*uploads, *asked]),
        *_covered("one caller", alone),
        *_covered("six callers, faults", asked),
    ]


def _cited() -> list[Result]:
    with (
        tempfile.TemporaryDirectory() as folder,
        mock_llm.running() as llm,
        mixed(Path(folder), **mock_llm.variables(llm)) as requests,
    ):
        requests.upload(DOCUMENTS)
        return asyncio.run(requests.run(CITED))


def _complete(asked: Sequence[Result]) -> Iterator[Row]:
    reasons = Counter(reason for result in asked for reason in result.problems)
    whole = sum(not result.problems for result in asked) / len(asked)
    told = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(_SHOWN))
    yield Row(
        f"complete and right, of {len(asked)} mixed requests",
        "share",
        whole,
        ">= 0.999",
        note=told or None,
        samples=[float(not result.problems) for result in asked],
    )
    facts = {
        "failed": sum(bool(result.outcome.error) for result in asked),
        "left by their caller": sum(result.outcome.left for result in asked),
        "degraded": sum(bool(result.outcome.degraded) for result in asked),
        "hedged": sum(bool(result.trace.get("hedged")) for result in asked),
        "retried": sum(bool(result.trace.get("retried")) for result in asked),
        "compared with what their answer cites": sum(
            "cite" in result.outcome.timings_ms for result in asked
        ),
        "in a device batch with others": sum(map(_shared, asked)),
    }
    yield from (Row(f"of these, {fact}", "", count, ">= 1") for fact, count in facts.items())


def _edges(results: Sequence[Result]) -> Iterator[Row]:
    seen = set().union(*(edges(result.trace.get("spans", ())) for result in results))
    missing, foreign = DECLARED - seen, seen - DECLARED
    yield Row(
        "edges gateway -> service, service -> service and -> engine, seen of those declared",
        "share",
        len(seen & DECLARED) / len(DECLARED),
        ">= 1",
        note=", ".join(" -> ".join(edge) for edge in sorted(missing or DECLARED)),
    )
    yield Row(
        "edges that are not declared",
        "",
        len(foreign),
        "<= 0",
        note=", ".join(" -> ".join(edge) for edge in sorted(foreign)) or None,
    )


def _covered(who: str, results: Sequence[Result]) -> Iterator[Row]:
    left = [abs(uncovered(result.outcome)) for result in results if result.outcome.timings_ms]
    yield Row(
        f"stages add up to timings_ms.total within 3 %, {who}",
        "share",
        sum(share <= _WITHIN for share in left) / len(left),
        ">= 0.99",
        note=f"{len(left)} requests; not in a stage: p50 {percentile(left, 50):.1%}, "
        f"p99 {percentile(left, 99):.1%} of the total",
        samples=[float(share <= _WITHIN) for share in left],
    )


def _shared(result: Result) -> bool:
    return any("trace_id" in span for span in result.trace.get("spans", ()))


def _tell(results: Sequence[Result]) -> None:
    """Each problem to who looks on."""
    for result in results:
        if result.problems:
            outcome = result.outcome
            print(
                f"{outcome.kind}: {outcome.status} {outcome.error} {list(outcome.degraded)}: "
                f"{'; '.join(result.problems)} ({outcome.trace_id})",
                file=sys.stderr,
            )
