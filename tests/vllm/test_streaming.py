"""Answers of one real engine: as they come, cut short, refused."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import replace

import pytest
import span_collector
from answers import (
    MAX_NUM_QUEUED_REQS,
    MAX_NUM_QUEUED_TOKENS,
    MAX_NUM_SEQS,
    OPTIONS,
    QUESTION,
    Reader,
    answer,
    idle,
    prompt,
    reading,
    seats_taken,
    until,
)
from prometheus_client import REGISTRY
from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, InvalidInput, Overloaded, Unavailable
from raglan.health import Health
from raglan.scheduling import Lane
from raglan_generator.engines import vllm_preflight
from raglan_generator.engines.vllm import VllmModel
from raglan_generator.generation import FinishReason, Sampling
from raglan_generator.language_model import End, Prompt, Text
from tiny_model import MAX_MODEL_LEN

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_an_answer_comes_in_pieces_and_ends_with_its_usage(model: VllmModel) -> None:
    reader = Reader(model, replace(QUESTION, max_tokens=40))
    await reader.task
    *texts, end = reader.pieces
    assert len(texts) > 5
    assert all(isinstance(piece, Text) and piece.text for piece in texts)
    assert isinstance(end, End)
    assert end.reason is FinishReason.LENGTH
    assert end.usage is not None
    assert end.usage.completion_tokens == 40
    assert end.usage.prompt_tokens == model.tokenizer.render(prompt().messages).tokens
    assert end.queue_ns > 0


async def test_token_ids_and_messages_are_the_same_prompt(model: VllmModel) -> None:
    ids = model.tokenizer.render(prompt().messages).token_ids
    of_ids, _ = await answer(model, Prompt((), (), token_ids=ids))
    of_messages, _ = await answer(model)
    assert of_ids == of_messages


async def test_what_a_slow_reader_missed_comes_as_one_piece(model: VllmModel) -> None:
    pieces = model.stream(prompt(), replace(QUESTION, max_tokens=60), Deadline.after(30))
    async with aclosing(pieces):
        await anext(pieces)
        await until(lambda: model.load().running == 1, "it is seen to run")
        await idle(model)
        rest = await anext(pieces)
        assert isinstance(rest, Text)
        assert rest.tokens > 50


async def test_a_request_that_is_left_is_aborted_within_half_a_second(model: VllmModel) -> None:
    await answer(model)
    tasks = len(asyncio.all_tasks())
    slowest_s = 0.0
    for _ in range(50):
        pieces = model.stream(prompt(), replace(QUESTION, max_tokens=3_000), Deadline.after(30))
        async with aclosing(pieces):
            await anext(pieces)
        slowest_s = max(slowest_s, await idle(model, within_s=0.5))
    assert slowest_s < 0.5
    assert len(asyncio.all_tasks()) == tasks
    assert model.load().kv_use == 0
    assert not model._running


async def test_a_request_that_is_left_before_its_first_token_is_aborted(model: VllmModel) -> None:
    async with seats_taken(model):
        left = Reader(model)
        await until(lambda: model.load().waiting == 1, "it waits")
        await left.leave()
        await until(lambda: model.load().waiting == 0, "nobody waits", within_s=0.5)
    await idle(model, within_s=0.5)


async def test_the_deadline_ends_an_answer_and_the_work_on_it(model: VllmModel) -> None:
    with pytest.raises(DeadlineExceeded, match="deadline"):
        await answer(model, request=replace(QUESTION, max_tokens=4_000), within_s=0.3)
    await idle(model, within_s=0.5)


async def test_an_answer_that_begins_too_late_is_ended(model: VllmModel) -> None:
    async with seats_taken(model):
        with pytest.raises(DeadlineExceeded, match="begin"):
            await answer(model, request=replace(QUESTION, first_token_s=0.2))
    await idle(model)


async def test_a_limit_on_the_first_token_is_none_on_the_last(model: VllmModel) -> None:
    # An engine that was idle may need seconds to notice that it has work.
    await answer(model)
    _, end = await answer(model, request=replace(QUESTION, max_tokens=900, first_token_s=1.0))
    assert end.reason is FinishReason.LENGTH


async def test_more_requests_than_may_wait_are_refused_at_once(model: VllmModel) -> None:
    busy = [Reader(model) for _ in range(MAX_NUM_QUEUED_REQS)]
    async with reading(*busy, all_begun=False):
        await busy[0].begun()
        with pytest.raises(Overloaded, match="RAGLAN_GENERATOR_MAX_NUM_QUEUED_REQS") as refused:
            await answer(model)
        assert refused.value.retry_after_s is not None
        assert 0.1 <= refused.value.retry_after_s < 600
    await idle(model)


async def test_more_prompt_than_may_wait_is_refused_at_once(model: VllmModel) -> None:
    long = prompt(words=3_000)
    tokens = model.tokenizer.render(long.messages).tokens
    async with seats_taken(model):
        waiting = [Reader(model, asked=long) for _ in range(MAX_NUM_QUEUED_TOKENS // tokens + 1)]
        async with reading(*waiting, all_begun=False):
            await until(lambda: model.load().waiting == len(waiting), "they wait")
            with pytest.raises(Overloaded, match="RAGLAN_GENERATOR_MAX_NUM_QUEUED_TOKENS"):
                await answer(model)
    await idle(model)


async def test_bulk_work_yields_to_questions_that_come_later(model: VllmModel) -> None:
    busy = [Reader(model) for _ in range(MAX_NUM_SEQS)]
    async with reading(*busy):
        bulk = Reader(model, replace(QUESTION, lane=Lane.BULK))
        await until(lambda: model.load().waiting == 1, "the bulk request waits")
        asked = Reader(model, replace(QUESTION, lane=Lane.INTERACTIVE))
        await until(lambda: model.load().waiting == 2, "the question waits")
        await busy[0].leave()
        await asyncio.gather(asked.task, bulk.task)
    assert asked.began_at < bulk.began_at


async def test_tenants_share_no_cached_prompts(model: VllmModel) -> None:
    long = prompt(words=600)

    async def cached(tenant: str) -> int:
        _, end = await answer(model, long, replace(QUESTION, tenant=tenant))
        assert end.usage is not None
        return end.usage.cached_tokens

    assert await cached("a") == 0
    assert await cached("a") > 500
    assert await cached("b") == 0


async def test_a_prompt_longer_than_the_model_is_refused(model: VllmModel) -> None:
    with pytest.raises(InvalidInput, match=rf"the model takes {MAX_MODEL_LEN}"):
        await answer(model, prompt(words=MAX_MODEL_LEN))


async def test_an_answer_takes_no_more_room_than_the_model_has(model: VllmModel) -> None:
    words = MAX_MODEL_LEN - model.tokenizer.render(prompt().messages).tokens - 8
    asked = prompt(words=words)
    used = model.tokenizer.render(asked.messages).tokens
    assert MAX_MODEL_LEN - 16 < used < MAX_MODEL_LEN
    _, end = await answer(model, asked, replace(QUESTION, max_tokens=500))
    assert end.usage is not None
    assert end.usage.completion_tokens == MAX_MODEL_LEN - used


async def test_an_adapter_changes_the_answer(model: VllmModel) -> None:
    plain, _ = await answer(model)
    adapted, _ = await answer(model, request=replace(QUESTION, adapter="legal"))
    assert adapted != plain


async def test_an_unknown_adapter_is_refused_with_the_known_ones(model: VllmModel) -> None:
    with pytest.raises(InvalidInput, match=r"'medical'.*legal"):
        await answer(model, request=replace(QUESTION, adapter="medical"))


async def test_a_schema_makes_the_answer_a_document_of_it(model: VllmModel) -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"enum": ["yes", "no"]}, "sources": {"enum": [1, 2]}},
        "required": ["answer", "sources"],
        "additionalProperties": False,
    }
    request = replace(QUESTION, max_tokens=200, json_schema=json.dumps(schema))
    text, end = await answer(model, request=request)
    assert end.reason is FinishReason.STOP
    document = json.loads(text)
    assert document.keys() == {"answer", "sources"}
    assert document["answer"] in {"yes", "no"}


@pytest.mark.parametrize(
    "schema",
    [
        "{",
        '"text"',
        '{"type": "nonsense"}',
        '{"type": "object", "properties": 3}',
        '{"$ref": "#/$defs/missing"}',
        '{"type": "string", "pattern": "(["}',
        '{"a":' * 500 + "1" + "}" * 500,
    ],
)
async def test_an_invalid_schema_is_refused_and_harms_nobody(model: VllmModel, schema: str) -> None:
    with pytest.raises(InvalidInput):
        await answer(model, request=replace(QUESTION, json_schema=schema))
    assert await answer(model)
    assert model.health() is Health.SERVING


async def test_a_seed_repeats_an_answer(model: VllmModel) -> None:
    def sampled(seed: int) -> Sampling:
        return Sampling(temperature=1.0, top_p=0.95, seed=seed)

    texts = [
        (await answer(model, request=replace(QUESTION, sampling=sampled(seed))))[0]
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


async def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(model: VllmModel) -> None:
    whole, _ = await answer(model, request=replace(QUESTION, max_tokens=30))
    stop = whole[4:7]
    request = replace(QUESTION, max_tokens=30, sampling=Sampling(stop=(stop,)))
    text, end = await answer(model, request=request)
    assert text == whole[: whole.index(stop)]
    assert end.reason is FinishReason.STOP


@pytest.mark.parametrize("sampling", [Sampling(temperature=-1), Sampling(top_p=0)])
async def test_sampling_that_cannot_be_is_refused(model: VllmModel, sampling: Sampling) -> None:
    with pytest.raises(InvalidInput):
        await answer(model, request=replace(QUESTION, sampling=sampling))


async def test_the_callers_trace_goes_on_in_the_engine(
    model: VllmModel, spans: span_collector.Collector
) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    await answer(model, request=replace(QUESTION, trace_headers=headers))
    await until(lambda: trace in spans.trace_ids, "its span is collected")


async def test_the_load_is_what_the_engine_holds(model: VllmModel) -> None:
    asked = prompt(words=300)
    await answer(model, asked)
    before = model.load()
    busy = [Reader(model, asked=asked) for _ in range(MAX_NUM_SEQS + 3)]
    async with reading(*busy, all_begun=False):
        await until(lambda: model.load().running == MAX_NUM_SEQS, "all seats are taken")
        await until(lambda: model.load().waiting == 3, "the others wait")
        load = model.load()
        assert 0 < load.kv_use < 1
        assert load.prefix_tokens_total > before.prefix_tokens_total + 300
        assert load.prefix_hits_total > before.prefix_hits_total + 100
    await idle(model)


async def test_vllm_adds_no_metrics_to_the_process(model: VllmModel) -> None:
    await answer(model)
    assert not [family.name for family in REGISTRY.collect() if "vllm" in family.name]


async def test_the_engine_says_what_it_is(model: VllmModel) -> None:
    info = model.info
    assert (info.engine, info.model, info.device, info.dtype) == ("vllm", "tiny", "cpu", "bfloat16")
    assert info.adapters == ("legal",)
    assert info.limits["max_model_len"] == MAX_MODEL_LEN
    assert info.limits["max_num_seqs"] == MAX_NUM_SEQS


async def test_the_installed_vllm_is_one_that_is_supported(model: VllmModel) -> None:
    version = vllm_preflight.installed()
    assert version is not None
    assert vllm_preflight.fits(version, vllm_preflight.supported())


async def test_nothing_is_answered_before_the_start() -> None:
    with pytest.raises(Unavailable, match="not started"):
        await answer(VllmModel("/nowhere", OPTIONS))
