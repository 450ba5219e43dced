"""What is taken of a caller's trace context, and what is passed on."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry import baggage
from opentelemetry.trace.propagation import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from raglan.telemetry import context as request_context

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"


def test_a_callers_trace_goes_on() -> None:
    found = request_context.caller({"traceparent": GOOD})
    assert found is not None
    assert (f"{found.trace_id:032x}", f"{found.span_id:016x}") == (TRACE, SPAN)
    assert found.is_remote


@pytest.mark.parametrize(
    "header",
    [
        "",
        "garbage",
        GOOD[:-1],
        GOOD + "-more",
        GOOD + "\n0",
        GOOD.upper(),
        GOOD.replace("00-", "ff-", 1),
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        "x" * 65_536,
        f"cc-{TRACE}-{SPAN}-01-{'x' * 65_536}",
        GOOD.replace("-", "\u2010"),
    ],
)
def test_a_malformed_one_is_ignored_and_a_trace_begins(header: str) -> None:
    assert request_context.caller({"traceparent": header}) is None
    with request_context.incoming({"traceparent": header}):
        assert len(request_context.trace_id()) == 32
        assert request_context.trace_id() != TRACE


def test_a_later_version_with_more_fields_is_read() -> None:
    assert request_context.caller({"traceparent": f"cc-{TRACE}-{SPAN}-01-what-the-future-holds"})


@given(
    st.one_of(st.text(max_size=80), st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-0[01]"))
)
@example(f"{GOOD}\r")
@example(f" {GOOD}\t\n")
@example(f"{GOOD}\u2003")
def test_whatever_comes_is_read_as_opentelemetry_reads_it(header: str) -> None:
    theirs = get_current_span(
        TraceContextTextMapPropagator().extract({"traceparent": header})
    ).get_span_context()
    ours = request_context.caller({"traceparent": header})
    assert (ours is not None) == theirs.is_valid
    if ours is not None:
        assert (ours.trace_id, ours.span_id) == (theirs.trace_id, theirs.span_id)


def test_tracestate_travels_and_baggage_does_not() -> None:
    carrier = {"traceparent": GOOD, "tracestate": "vendor=1", "baggage": "user=miller"}
    with request_context.incoming(carrier):
        assert request_context.headers() == {
            "traceparent": f"00-{TRACE}-{SPAN}-01",
            "tracestate": "vendor=1",
            "x-request-id": request_context.request_id(),
        }
        assert baggage.get_all() == {}


@pytest.mark.parametrize("name", ["tracestate", "baggage", "x-request-id"])
def test_64_kilobytes_in_a_header_are_not_passed_on(name: str) -> None:
    with request_context.incoming({"traceparent": GOOD, name: "k=" + "v" * 65_536}):
        assert request_context.trace_id() == TRACE
        assert sum(map(len, request_context.headers().values())) < 200
