"""The generator as its callers see it: a real server, a real channel, the extractive engine."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from raglan.deadline import Deadline
from raglan.errors import InvalidInput
from raglan.rpc import client
from raglan.rpc.server import Server
from raglan.v1 import common_pb2, generator_pb2, generator_pb2_grpc
from raglan_generator.app import build
from raglan_generator.settings import GeneratorSettings

DOCUMENT = (
    "Raglan pins each service to its own device. The reranker runs on the second GPU when "
    "CUDA_VISIBLE_DEVICES is 1. The gateway needs no GPU at all. Retries draw on a budget of "
    "10 % of the requests."
)


@pytest.fixture
async def stub() -> AsyncIterator[generator_pb2_grpc.GeneratorServiceAsyncStub]:
    settings = GeneratorSettings(port=0, shutdown_drain_s=0, shutdown_grace_s=0)
    server = Server(build(settings), settings)
    await server.start()
    channel = client.connect(f"127.0.0.1:{server.port}")
    yield generator_pb2_grpc.GeneratorServiceStub(channel)
    await channel.close()
    await server.stop()


def passage(text: str, start: int = 0) -> common_pb2.Passage:
    return common_pb2.Passage(text=text, start=start, end=start + len(text), title="Handbook")


async def ask(
    stub: generator_pb2_grpc.GeneratorServiceAsyncStub, **request: object
) -> list[generator_pb2.GenerateEvent]:
    message = generator_pb2.GenerateRequest(**request)
    return [e async for e in client.stream(stub.Generate, message, deadline=Deadline.after(10))]


def text_of(events: list[generator_pb2.GenerateEvent]) -> str:
    return "".join(event.delta.text for event in events)


def citations_of(events: list[generator_pb2.GenerateEvent]) -> list[generator_pb2.Citation]:
    return [event.citation for event in events if event.WhichOneof("event") == "citation"]


async def test_an_answer_quotes_the_sentence_that_holds_it(stub) -> None:
    events = await ask(
        stub, question="On which GPU does the reranker run?", passages=[passage(DOCUMENT)]
    )
    assert "The reranker runs on the second GPU" in text_of(events)
    assert events[-1].finished.reason == generator_pb2.FINISH_REASON_STOP


async def test_every_quote_equals_the_document_at_its_offsets(stub) -> None:
    document = "Préface 😀. " * 7 + DOCUMENT
    start = document.index("Raglan pins")
    events = await ask(
        stub,
        question="On which GPU does the reranker run?",
        passages=[passage(document[start:], start)],
    )
    citations = citations_of(events)
    assert citations
    for citation in citations:
        assert citation.quote == document[citation.start : citation.end]


async def test_a_question_from_elsewhere_is_not_answered(stub) -> None:
    events = await ask(
        stub, question="Who painted the Mona Lisa in Florence?", passages=[passage(DOCUMENT)]
    )
    assert text_of(events) == "The documents do not answer this."
    assert events[-1].finished.reason == generator_pb2.FINISH_REASON_ABSTAINED
    assert citations_of(events) == []


async def test_without_passages_the_answer_abstains(stub) -> None:
    events = await ask(stub, question="Who?")
    assert events[-1].finished.reason == generator_pb2.FINISH_REASON_ABSTAINED


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"question": "  "}, "question is empty"),
        ({"question": "x" * 8_001}, "MAX_QUESTION_CHARS"),
        (
            {"question": "x", "passages": [passage("y")] * 1000},
            "1000; the limit is 100 .*MAX_PASSAGES",
        ),
        ({"question": "x", "max_tokens": 5000}, "max_tokens is 5000; the limit is 4096"),
        ({"question": "x", "history": [generator_pb2.Turn(text="y")]}, r"history\[0\].role"),
        ({"question": "x", "passages": [common_pb2.Passage(text="y", end=5)]}, r"passages\[0\]"),
    ],
)
async def test_bad_input_is_refused_by_name(stub, request_, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        await ask(stub, **request_)


async def test_get_info_names_engine_and_limits(stub) -> None:
    info = await client.call(stub.GetInfo, common_pb2.GetInfoRequest(), deadline=Deadline.after(5))
    assert (info.service, info.engine) == ("generator", "extractive")
    assert info.limits["max_passages"] == 100


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        ({"json_schema": "{"}, "json_schema is no JSON"),
        ({"json_schema": "[]"}, "json_schema is no JSON object"),
        ({"json_schema": "[" * 100_000}, "json_schema has 100000 characters; the limit is 16384"),
        ({"json_schema": '{"minItems": 100000000}'}, "minItems 100000000; the limit is 1000"),
        ({"tenant": "t" * 257}, "tenant has 257 characters; the limit is 256"),
        ({"adapter": "a" * 257}, "adapter has 257 characters"),
        ({"sampling": {"temperature": 2.5}}, "temperature is 2.5; it must be in .0, 2."),
        ({"sampling": {"temperature": float("nan")}}, "temperature is nan"),
        ({"sampling": {"top_p": 0.0}}, "top_p is 0; it must be in .0, 1."),
        ({"sampling": {"stop": ["x"] * 17}}, "sampling.stop has 17 texts; the limit is 16"),
    ],
)
async def test_a_limit_of_the_answer_that_cannot_be_is_refused_by_name(
    stub, request_: dict[str, object], named: str
) -> None:
    with pytest.raises(InvalidInput, match=named):
        await ask(stub, question="Why?", passages=[passage(DOCUMENT)], **request_)


async def test_a_whole_answer_tells_how_far_to_trust_it(stub) -> None:
    events = await ask(
        stub, question="On which GPU does the reranker run?", passages=[passage(DOCUMENT)]
    )
    finished = events[-1].finished
    assert 0.25 < finished.confidence <= 1
    assert finished.groundedness == 1
    assert finished.parts
    assert all(0 <= value <= 1 for value in finished.parts.values())


async def test_an_abstention_is_grounded_in_nothing(stub) -> None:
    finished = (await ask(stub, question="Who won the cup?", passages=[passage(DOCUMENT)]))[-1]
    assert finished.finished.groundedness == 0
    assert finished.finished.confidence < 0.25


async def test_the_service_says_what_it_has_in_hand_and_where_its_metrics_are(stub) -> None:
    info = await client.call(
        stub.GetInfo, common_pb2.GetInfoRequest(), deadline=Deadline.after(5), to="the generator"
    )
    assert {"running", "waiting", "kv_use", "backlog_s"} <= set(info.load)
    async with httpx.AsyncClient() as http:
        page = (await http.get(f"http://127.0.0.1:{info.metrics_port}/metrics")).text
    assert "raglan_backlog_seconds 0.0" in page
    assert "raglan_generator_first_token_seconds_count" in page
