"""The reranker as its callers meet it: a real gRPC server and real models."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import metrics_endpoint
import pytest
import pytest_asyncio
from raglan.deadline import Deadline
from raglan.errors import InvalidInput, PayloadTooLarge, RaglanError, Unavailable
from raglan.rpc import client
from raglan.v1 import common_pb2, reranker_pb2, reranker_pb2_grpc
from raglan_reranker.app import build
from raglan_reranker.settings import RerankerSettings
from raglan_reranker.tuning import TUNING

pytestmark = pytest.mark.asyncio(loop_scope="module")

Stub = reranker_pb2_grpc.RerankerServiceStub
Serve = Callable[..., Awaitable[Stub]]

QUERY = "How does a plant make sugar from light?"
PASSAGES = [
    "The parliament passed the bill on the second reading.",
    "Photosynthesis turns light, water and carbon dioxide into sugar in the leaves of a plant.",
    "The goalkeeper saved two penalties in the final.",
    "Sugar prices rose last year.",
]


async def rerank(
    stub: Stub, passages: list[str], *, query: str = QUERY, within_s: float = 30
) -> reranker_pb2.RerankResponse:
    request = reranker_pb2.RerankRequest(
        query=query,
        candidates=[
            reranker_pb2.Candidate(text=text, retrieval_score=1 - rank / 100)
            for rank, text in enumerate(passages)
        ],
    )
    deadline = Deadline.after(within_s)
    reply: reranker_pb2.RerankResponse = await client.call(stub.Rerank, request, deadline=deadline)
    return reply


async def info(stub: Stub) -> common_pb2.ServiceInfo:
    reply: common_pb2.ServiceInfo = await client.call(
        stub.GetInfo, common_pb2.GetInfoRequest(), deadline=Deadline.after(5)
    )
    return reply


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=["late-interaction", "cross-encoder"]
)
async def reranker(request: pytest.FixtureRequest, serve: Serve, cross_encoder: Path) -> Stub:
    """Each engine behind its server."""
    if request.param == "cross-encoder":
        return await serve(engine="cross-encoder", model=str(cross_encoder))
    return await serve(engine="late-interaction")


async def test_every_engine_ranks_best_first_with_identity_and_timing(reranker: Stub) -> None:
    # Texts of this test alone: scores and token vectors of others' may be cached.
    passages = [f"{passage} (first part)" for passage in PASSAGES]
    reply = await rerank(reranker, passages, query="Where in a plant is light turned into sugar?")
    assert sorted(ranked.index for ranked in reply.ranked) == [0, 1, 2, 3]
    scores = [ranked.score for ranked in reply.ranked]
    assert scores == sorted(scores, reverse=True)
    assert len(reply.model.revision) == 12
    assert reply.timing.compute_ns > 0
    assert reply.timing.tokenize_ns > 0
    assert reply.timing.batch_tokens > 0


async def test_every_engine_describes_what_runs(reranker: Stub) -> None:
    described = await info(reranker)
    assert described.service == "reranker"
    assert described.engine in ("late-interaction", "cross-encoder")
    assert described.device == "cpu"
    assert described.pid == os.getpid()
    assert described.limits["max_scored"] == 20
    assert described.limits["max_tokens"] == TUNING[described.engine].tokens_on_cpu


async def test_every_engine_counts_where_the_time_of_a_call_went(reranker: Stub) -> None:
    port = (await info(reranker)).metrics_port
    before = await metrics_endpoint.scraped(port)
    await rerank(reranker, PASSAGES, query="Where did the time go?")
    after = await metrics_endpoint.scraped(port)
    for part in ("queue", "tokenize", "compute"):
        for figure in ("count", "sum"):
            name = f"raglan_encoder_{part}_seconds_{figure},lane=interactive"
            assert after[name] > before[name], name


async def test_every_engine_scores_a_passage_the_same_whatever_its_company(reranker: Stub) -> None:
    alone = await rerank(reranker, PASSAGES[1:2])
    among = await rerank(reranker, [*PASSAGES, "And a much longer passage. " * 20])
    raw = {ranked.index: ranked.raw_score for ranked in among.ranked}
    assert raw[1] == pytest.approx(alone.ranked[0].raw_score, abs=1e-5)


async def test_every_engine_takes_one_candidate_equal_ones_and_odd_text(reranker: Stub) -> None:
    assert [r.index for r in (await rerank(reranker, ["x"])).ranked] == [0]
    assert len((await rerank(reranker, ["same"] * 5)).ranked) == 5
    odd = ["", "\0", "🙂" * 300, "日本語", "word " * 5000]
    assert len((await rerank(reranker, odd, query="\0 ?")).ranked) == 5


async def test_every_engine_refuses_bad_input_with_the_limit_named(reranker: Stub) -> None:
    cases: list[tuple[str, list[str], type[RaglanError], str]] = [
        ("", ["x"], InvalidInput, "query is empty"),
        ("q", [], InvalidInput, "candidates is empty"),
        ("q", ["x"] * 1001, InvalidInput, "holds 1001; the limit is 1000"),
        ("q", ["x"] * 10_000, InvalidInput, "holds 10000; the limit is 1000"),
        ("q" * 100_001, ["x"], PayloadTooLarge, "100001 characters; the limit is 100000"),
        ("q", ["x", "y" * 1_000_000], PayloadTooLarge, "1000000 characters; the limit is 100000"),
    ]
    for query, passages, error, message in cases:
        with pytest.raises(error, match=message):
            await rerank(reranker, passages, query=query)
    assert len((await rerank(reranker, ["and it serves on"])).ranked) == 1


async def test_every_engine_gives_probabilities_that_rise_with_its_scores(reranker: Stub) -> None:
    candidates = [reranker_pb2.Candidate(text=text, retrieval_score=1) for text in PASSAGES]
    reply: reranker_pb2.RerankResponse = await client.call(
        reranker.Rerank,
        reranker_pb2.RerankRequest(query=QUERY, candidates=candidates),
        deadline=Deadline.after(30),
    )
    assert all(ranked.HasField("calibrated") for ranked in reply.ranked)
    chances = [ranked.calibrated for ranked in reply.ranked]
    assert chances == sorted(chances, reverse=True)
    assert all(0 < chance < 1 for chance in chances)


async def test_every_engine_leaves_texts_alone_that_its_model_cannot_read(reranker: Stub) -> None:
    passages = ["Мост зимой закрыт.", "Столовая открывается в полдень.", "Кошки спят днём."]
    reply = await rerank(reranker, passages, query="Когда открывается столовая?")
    assert reply.unreadable
    assert not reply.ranked


async def test_every_engine_gives_a_pair_the_same_value_whatever_its_company(
    reranker: Stub,
) -> None:
    alone = await rerank(reranker, PASSAGES[1:2])
    among = await rerank(reranker, [*PASSAGES, "And a much longer passage. " * 20])
    value = {ranked.index: ranked.calibrated for ranked in among.ranked}
    assert value[1] == pytest.approx(alone.ranked[0].calibrated, abs=1e-5)


async def test_every_engine_knows_a_question_it_was_asked_before(reranker: Stub) -> None:
    first = await rerank(reranker, PASSAGES, query="Which plants make sugar?")
    again = await rerank(reranker, PASSAGES, query="Which plants make sugar?")
    assert again.ranked == first.ranked
    assert (first.timing.compute_ns > 0, again.timing.compute_ns) == (True, 0)


async def test_a_score_is_the_same_whether_the_passage_was_met_before(serve: Serve) -> None:
    keeping, forgetting = await serve(cache_pairs=0), await serve(cache_vectors_mb=0, cache_pairs=0)
    await rerank(keeping, PASSAGES, query="another question")
    assert (await rerank(keeping, PASSAGES)).ranked == (await rerank(forgetting, PASSAGES)).ranked


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
async def test_every_engine_refuses_a_retrieval_score_that_is_no_number(
    reranker: Stub, score: float
) -> None:
    candidate = reranker_pb2.Candidate(text="x", retrieval_score=score)
    request = reranker_pb2.RerankRequest(query="q", candidates=[candidate])
    with pytest.raises(InvalidInput, match=r"candidates\[0\].retrieval_score is .*finite"):
        await client.call(reranker.Rerank, request, deadline=Deadline.after(5))


async def test_late_interaction_puts_the_answer_first(serve: Serve) -> None:
    reply = await rerank(await serve(blend=1.0), PASSAGES)
    assert reply.ranked[0].index == 1
    assert -1 <= reply.ranked[-1].raw_score < reply.ranked[0].raw_score <= 1.0001


async def test_candidates_are_limited_by_count_and_by_tokens(serve: Serve) -> None:
    stub = await serve(max_scored=5, max_tokens=400)
    assert sorted(r.index for r in (await rerank(stub, ["short"] * 9)).ranked) == [0, 1, 2, 3, 4]
    long = ["word " * 150] * 9
    assert sorted(r.index for r in (await rerank(stub, long)).ranked) == [0, 1]


async def test_a_large_call_is_scored_and_leaves_the_loop_free(serve: Serve) -> None:
    """That nothing holds the loop is what the fixture `no_blocked_loop` looks at."""
    stub = await serve(max_tokens=8_000, max_gap=100)
    assert len((await rerank(stub, ["word " * 250] * 20)).ranked) == 20


async def test_a_cross_encoder_agrees_with_sentence_transformers(
    serve: Serve, cross_encoder: Path
) -> None:
    def reference() -> list[float]:
        import sentence_transformers
        import torch

        model = sentence_transformers.CrossEncoder(
            str(cross_encoder), device="cpu", local_files_only=True
        )
        pairs = [(QUERY, text) for text in PASSAGES]
        logits = model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
        return [float(logit) for logit in logits]

    stub = await serve(engine="cross-encoder", model=str(cross_encoder), precision="f32")
    reply = await rerank(stub, PASSAGES)
    expected = await asyncio.to_thread(reference)
    raw = {ranked.index: ranked.raw_score for ranked in reply.ranked}
    assert [raw[index] for index in range(4)] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"model": "/no/such/model"}, Unavailable, "one of three ways"),
        ({"engine": "cross-encoder", "model": "/no/such/model"}, Unavailable, "one of three ways"),
        ({"device": "cuda"}, InvalidInput, "openvino engine runs on the CPU"),
        ({"engine": "cross-encoder"}, InvalidInput, "gives 2 scores a pair"),
    ],
)
async def test_a_start_that_cannot_be_served_is_refused_with_a_reason(
    model_cache: Path, changes: dict[str, Any], error: type[RaglanError], reason: str
) -> None:
    service = build(RerankerSettings(port=0, cache_dir=model_cache, **changes))
    with pytest.raises(error, match=reason):
        await service.start()
    await service.close()


async def test_before_the_model_is_loaded_calls_are_told_to_come_back(model_cache: Path) -> None:
    server = grpc.aio.server()
    build(RerankerSettings(port=0, cache_dir=model_cache)).register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with client.connect(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="still loading"):
            await Stub(channel).GetInfo(common_pb2.GetInfoRequest(), timeout=5)
    await server.stop(0)


async def test_two_devices_are_two_processes_behind_one_queue(serve: Serve) -> None:
    stub = await serve(device="cpu,cpu", runtime="onnx")
    request = reranker_pb2.RerankRequest(
        query="Which city is the capital of France?",
        candidates=[
            reranker_pb2.Candidate(text="Bananas are rich in potassium.", retrieval_score=0.5),
            reranker_pb2.Candidate(text="Paris is the capital of France.", retrieval_score=0.5),
        ],
    )
    reply = await stub.Rerank(request, timeout=20)
    assert [ranked.index for ranked in reply.ranked] == [1, 0]
    described = await info(stub)
    assert described.device == "cpu,cpu"
    assert described.limits["max_tokens"] == 1200
