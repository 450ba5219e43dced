"""`raglan trace` and `raglan ask --trace`: what a reader sees of a trace."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan.telemetry import semconv
from raglan_cli import explained, waterfall
from raglan_cli.screen import SafeConsole
from raglan_cli.spantree import milliseconds, placed

ID = "4bf92f3577b34da6a3ce929d0e0e4736"
BEGAN = 1_700_000_000 * 10**9


def span(
    number: int, parent: int, service: str, name: str, begin_ms: float, end_ms: float, **fields: Any
) -> dict[str, Any]:
    known: dict[str, Any] = {
        "span_id": f"{number:016x}",
        "parent_span_id": f"{parent:016x}" if parent else None,
        "service": service,
        "name": name,
        "kind": "internal",
        "start_ns": BEGAN + int(begin_ms * 1e6),
        "end_ns": BEGAN + int(end_ms * 1e6),
        "status": "unset",
        "attributes": {},
        "events": [],
        "links": [],
    }
    return known | fields


def trace(*spans: dict[str, Any], **fields: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "trace_id": ID,
        "route": "/v1/query",
        "name": "POST /v1/query",
        "status": 200,
        "error": False,
        "degraded": False,
        "hedged": False,
        "retried": False,
        "start_ns": BEGAN,
        "duration_ms": 80.0,
        "reasons": ["hedged", "slow"],
        "span_count": len(spans),
        "dropped": 0,
        "complete": True,
        "missing": [],
        "spans": list(spans),
    }
    return known | fields


def documents(name: str, *found: tuple[str, float]) -> dict[str, Any]:
    return {
        f"{name}.{at}.document.{key}": value
        for at, (id_, score) in enumerate(found)
        for key, value in (("id", id_), ("score", score))
    }


FELL_BACK = {
    "name": semconv.DEGRADED,
    "time_ns": BEGAN,
    "attributes": {
        semconv.STAGE: "rerank",
        semconv.DEGRADED_FALLBACK: "fused_order",
        semconv.DEGRADED_REASON: "The reranker\x1b[31m was late.",
    },
}
EMBED = "raglan.v1.EmbedderService/Embed"
QUERY = trace(
    span(1, 0, "gateway", "POST /v1/query", 0, 80, kind="server", events=[FELL_BACK]),
    span(2, 1, "gateway", "embed", 0, 40, attributes={
        semconv.STAGE: "embed", semconv.QUEUE_MS: 3, semconv.COMPUTE_MS: 8.25,
        semconv.DEADLINE_REMAINING_MS: 842.0}),
    span(3, 2, "gateway", EMBED, 0, 40, kind="client", attributes={
        semconv.ATTEMPT: "first", semconv.PEER: "127.0.0.1:1", semconv.ATTEMPT_OVERTAKEN: True}),
    span(4, 2, "gateway", EMBED, 20, 40, kind="client", attributes={
        semconv.ATTEMPT: "hedge", semconv.PEER: "127.0.0.1:2", semconv.BREAKER: "half_open"}),
    span(5, 4, "embedder", EMBED, 20, 40, kind="server", attributes={
        semconv.QUEUE_MS: 10.0, semconv.TOKENIZE_MS: 0.5, semconv.COMPUTE_MS: 9.5}),
    span(6, 5, "embedder", semconv.BATCH, 30, 40, attributes={
        semconv.BATCH_SIZE: 8, semconv.BATCH_REQUESTS: 3}),
    span(7, 1, "gateway", "retrieve", 40, 60, attributes={
        semconv.STAGE: "retrieve",
        **documents(semconv.RETRIEVED, ("a", 0.9), ("b", 0.8), ("c", 0.7))}),
    span(8, 7, "gateway", "raglan.v1.RetrieverService/Search", 40, 60, kind="client",
         status="error", status_message="The retriever cannot be reached.",
         attributes={semconv.ATTEMPT: "first", semconv.RPC_STATUS: "UNAVAILABLE"}),
)  # fmt: skip
REPLY: dict[str, Any] = {
    "answer": "Yes. [1]",
    "citations": [],
    "degraded": [],
    "timings_ms": {"total": 80},
    "trace_id": ID,
    "passages": [
        {"chunk_id": "c", "document_id": "d", "title": "Pinning", "text": "It is\nset.", "rank": 1,
         "scores": {"fused": 0.7, "rerank": 1.5}},
        {"chunk_id": "a", "document_id": "d", "title": "", "text": "No.", "rank": 2,
         "scores": {"fused": 0.9, "rerank": 0.5}},
    ],
}  # fmt: skip


def drawn(found: dict[str, Any], width: int, **options: Any) -> list[str]:
    console = SafeConsole(width=width, **options)
    with console.capture() as captured:
        waterfall.show(console, found)
    return captured.get().splitlines()


def test_a_trace_is_drawn_as_a_waterfall(raglan: Any, gateway: Any) -> None:
    gateway.traces[ID] = QUERY
    run = raglan("trace", ID, url=gateway.url)
    assert run.status == 0, run.err
    assert "\x1b" not in run.out
    lines = run.out.splitlines()
    assert lines[0].startswith("POST /v1/query  200  80.0 ms  ")
    assert lines[0].endswith("kept as hedged, slow")
    assert lines[1] == f"trace {ID}"
    assert [line[:10].strip() for line in lines[2:10]] == ["gateway"] * 4 + ["embedder"] * 2 + [
        "gateway"
    ] * 2
    hedge = lines[5]
    assert hedge[11:].startswith("    EmbedderService/Embed")
    assert "20.0" in hedge
    assert "hedge  breaker half_open  127.0.0.1:2" in hedge
    assert "overtaken" in lines[4]
    assert "queue 10.0 tokenise 0.50 compute 9.50" in lines[6]
    assert "8 texts of 3 requests" in lines[7]
    assert "842 ms were left" in lines[3]
    assert "The retriever cannot be reached." in lines[9]
    assert "rerank fell back to fused_order: The reranker[31m was late." in lines[2]


def test_bars_show_when_and_for_how_long_and_what_was_the_queue() -> None:
    lines = drawn(QUERY, 120)
    root, embed = lines[2], lines[6]
    begin, width = root.index("█"), root.count("█")
    assert embed.index("░") - begin == round(width / 4)
    assert embed.count("░") + embed.count("█") == pytest.approx(width / 4, abs=1)
    assert embed.count("░") == pytest.approx(width / 8, abs=1)


@pytest.mark.parametrize("width", [10, 24, 40, 55, 56, 80, 109, 110, 250])
def test_no_line_is_wider_than_the_terminal_and_every_span_has_one(width: int) -> None:
    lines = drawn(QUERY, width)
    spans = lines[2 : 2 + len(QUERY["spans"]) * 2]
    if width >= 24:
        assert all(len(line) <= max(width, 40) for line in spans)
    assert sum("Embed" in line for line in lines) == 3 or width < 24


def test_without_unicode_bars_are_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SafeConsole, "encoding", "ascii")
    text = "\n".join(drawn(QUERY, 100))
    assert "####" in text
    assert text.isascii()


def test_what_is_missing_is_said(raglan: Any, gateway: Any) -> None:
    gateway.traces[ID] = QUERY | {"complete": False, "dropped": 7, "missing": ["127.0.0.1:9"]}
    run = raglan("trace", ID, url=gateway.url)
    assert "127.0.0.1:9" in run.out
    assert "7 more spans were dropped (RAGLAN_GATEWAY_TRACE_MAX_SPANS)" in run.out


def test_no_span_steers_the_terminal() -> None:
    evil = "\x1b[2J\x07"
    attributes = {semconv.STAGE: evil, semconv.ATTEMPT: evil, semconv.BREAKER: evil}
    spans = [
        span(1, 0, evil, evil, 0, 1, status="error", status_message=evil, attributes=attributes),
        span(2, 1, evil, evil, 0, 1, attributes=attributes | {semconv.ERROR_TYPE: evil}),
    ]
    console = SafeConsole(width=150)
    with console.capture() as captured:
        explained.show(console, {}, trace(*spans, name=evil))
    assert "\x1b" not in captured.get()
    assert "\x07" not in captured.get()


def test_a_batch_of_another_trace_stands_under_the_span_that_it_worked_for() -> None:
    link = {"trace_id": ID, "span_id": f"{5:016x}", "attributes": {}}
    elsewhere = {"trace_id": "ab" * 16, "links": [link]}
    batch = span(60, 61, "embedder", semconv.BATCH, 30, 40, **elsewhere)
    places = [(each.span["name"], each.depth) for each in placed([*QUERY["spans"], batch])]
    assert places[5:7] == [(semconv.BATCH, 4), (semconv.BATCH, 4)]


def test_ten_thousand_spans_are_cut_to_a_screenful() -> None:
    spans = [span(n, n - 1, "gateway", f"step {n}", n / 1e4, 80) for n in range(1, 10_001)]
    lines = drawn(trace(*spans), 120)
    assert len(lines) < waterfall.MOST_LINES + 10
    assert "9700 more spans; --json shows all." in lines


def test_json_is_the_trace_itself(raglan: Any, gateway: Any) -> None:
    gateway.traces[ID] = QUERY
    assert json.loads(raglan("trace", ID, "--json", url=gateway.url).out) == QUERY


@pytest.mark.parametrize("given", [ID, ID.upper(), f"00-{ID}-00f067aa0ba902b7-01", f" {ID} "])
def test_an_id_is_understood_as_it_is_found(raglan: Any, gateway: Any, given: str) -> None:
    gateway.traces[ID] = QUERY
    assert raglan("trace", given, url=gateway.url).status == 0


@pytest.mark.parametrize("given", ["x", ID[:-1], ID + "0", "../status", ""])
def test_what_is_no_id_is_refused_before_it_is_sent(raglan: Any, gateway: Any, given: str) -> None:
    run = raglan("trace", given, url=gateway.url)
    assert run.status == 2
    assert "32 hexadecimal digits" in run.err


def test_an_unknown_trace_is_told_in_the_gateways_words(raglan: Any, gateway: Any) -> None:
    run = raglan("trace", ID, url=gateway.url)
    assert (run.status, run.err.strip()) == (1, f"There is no trace {ID}.")


def test_without_a_mesh_the_way_out_is_named(raglan: Any) -> None:
    run = raglan("trace", ID, "--url", "http://127.0.0.1:1")
    assert run.status == 1
    assert "raglan up" in run.err


def test_without_an_id_the_newest_are_listed(raglan: Any, gateway: Any) -> None:
    gateway.traces[ID] = QUERY
    run = raglan("trace", "--errors", "--slower-ms", 5, "--limit", 3, url=gateway.url)
    assert run.status == 0, run.err
    assert gateway.asked == {"limit": "3", "min_duration_ms": "5.0", "error": "true"}
    heading, line = run.out.splitlines()
    assert heading.split() == ["when", "status", "ms", "what", "kept", "as", "trace"]
    assert line.endswith(ID)
    assert "POST /v1/query" in line
    assert "hedged, slow" in line


def test_an_empty_list_says_what_to_do(raglan: Any, gateway: Any) -> None:
    assert "raglan trace ID" in raglan("trace", url=gateway.url).out


def test_an_answer_is_explained_by_stages_passages_and_waterfall(raglan: Any, gateway: Any) -> None:
    gateway.traces[ID] = QUERY
    gateway.events = [("delta", '{"text": "Yes."}'), ("final", json.dumps(REPLY)), ("done", "{}")]
    run = raglan("ask", "Why?", "--trace", url=gateway.url)
    assert run.status == 0, run.err
    rows = [line.split() for line in run.out.splitlines()]
    assert ["embed", "40.0", "3.00", "8.25", "842", "first", "overtaken,", "hedge"] in rows
    assert ["retrieve", "20.0", "first", "UNAVAILABLE"] in rows
    assert ["3", "1", "0.700", "1.500", "Pinning:", "It", "is", "set."] in rows
    assert ["1", "2", "0.900", "0.500", "d:", "No."] in rows
    assert ["2", "-", "0.800", "b"] in rows
    assert f"trace {ID}" in run.out
    assert "█" in run.out


def test_an_explained_answer_is_one_document_with_its_trace(raglan: Any, gateway: Any) -> None:
    gateway.traces[ID] = QUERY
    gateway.events = [("final", json.dumps(REPLY)), ("done", "{}")]
    run = raglan("ask", "Why?", "--trace", "--json", url=gateway.url)
    assert json.loads(run.out) == REPLY | {"trace": QUERY}


def test_an_answer_that_failed_is_explained_as_well(raglan: Any, gateway: Any) -> None:
    gateway.traces[ID] = QUERY
    gateway.events = [
        ("start", json.dumps({"id": "q", "trace_id": ID})),
        ("delta", '{"text": "Ye"}'),
        (
            "error",
            '{"code": "UNAVAILABLE", "message": "The generator is gone.", "retryable": true}',
        ),
    ]
    run = raglan("ask", "Why?", "--trace", url=gateway.url)
    assert run.status == 1
    assert "The generator is gone." in run.err
    assert f"trace {ID}" in run.out


def test_an_answer_without_a_trace_is_still_an_answer(
    raglan: Any, gateway: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explained, "_PAUSE_S", 0)
    gateway.events = [("final", json.dumps(REPLY)), ("done", "{}")]
    run = raglan("ask", "Why?", "--trace", url=gateway.url)
    assert run.status == 0
    assert run.out.startswith("Yes. [1]")
    assert f"There is no trace {ID}." in run.err


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=12))
def test_every_span_has_one_place_whatever_its_parents_are(edges: list[tuple[int, int]]) -> None:
    spans = [span(n, parent, "gateway", "x", n, n + 1) for n, parent in dict(edges).items()]
    places = placed(spans)
    assert sorted(each.span["span_id"] for each in places) == sorted(s["span_id"] for s in spans)
    depth = {each.span["span_id"]: each.depth for each in places}
    for each in places:
        parent = each.span["parent_span_id"]
        assert each.depth == 0 or each.depth == depth[parent] + 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (0, "0.00"),
        (9.994, "9.99"),
        (12.34, "12.3"),
        (999.6, "1,000"),
        (12345, "12,345"),
    ],
)
def test_milliseconds_have_the_digits_that_matter(value: float | None, shown: str) -> None:
    assert milliseconds(value) == shown
