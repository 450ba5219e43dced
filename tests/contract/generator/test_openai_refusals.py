"""Requests that a server refuses as they are: without a parameter, shorter, later, or not again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest
from raglan import errors
from raglan.deadline import Deadline
from raglan_generator.answering import Answering
from raglan_generator.engines.hold_off import HoldOff
from raglan_generator.generation import Delta, Event, Finished, Passage, Request, Sampling

ASKED = Request(
    "Where does it run?",
    tuple(Passage(f"Machine {n} runs on GPU {n}. " * 40) for n in range(8)),
    max_tokens=64,
)


@pytest.fixture
async def engine(llm, asking_openai) -> AsyncIterator[Answering]:
    engine = asking_openai(llm.base_url)
    await engine.start()
    yield engine
    await engine.close()


async def answer(engine: Answering, request: Request = ASKED) -> list[Event]:
    async with aclosing(engine.generate(request, Deadline.after(5))) as events:
        return [event async for event in events]


def refusing(*names: str, message: str, status: int = 400, param: bool = False):
    """A server that refuses the first of these parameters that a request has."""

    async def script(exchange) -> None:
        for name in names:
            if name in exchange.body:
                said: dict[str, object] = {"message": message.format(name)}
                if param:
                    said["param"] = name
                await exchange.respond(status, json.dumps({"error": said}).encode())
                return
        await exchange.stream("On GPU 1 [1].")

    return script


def said(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


async def test_without_settings_no_sampling_is_sent(engine, llm) -> None:
    llm.script = refusing(message="")
    await answer(engine)
    assert llm.exchanges[0].body.keys() == {
        *("model", "messages", "max_tokens", "stream", "stream_options")
    }


async def test_a_tenant_s_prompts_are_cached_apart_and_its_name_stays_here(engine, llm) -> None:
    """vLLM's server heeds the salt; one that refuses it is asked without it from then on."""
    llm.script = refusing(message="")
    for tenant in ("acme", "beta", "acme"):
        await answer(engine, replace(ASKED, tenant=tenant))
    first, second, third = (each.body["cache_salt"] for each in llm.exchanges)
    assert first == third != second
    assert "acme" not in json.dumps([each.body for each in llm.exchanges])
    llm.script = refusing("cache_salt", message="Unrecognized request argument supplied: {}")
    assert said(await answer(engine, replace(ASKED, tenant="acme"))) == "On GPU 1 [1]."
    assert "cache_salt" not in llm.exchanges[-1].body


@pytest.mark.parametrize(
    ("message", "status", "param"),
    [
        ("Unsupported value: '{}' does not support 0.2 with this model.", 400, True),
        ("Unsupported parameter: '{}' is not supported with this model.", 400, False),
        ("Unrecognized request argument supplied: {}", 400, False),
        ("body.{}: Extra inputs are not permitted", 422, False),
        ("unknown field `{}`", 422, False),
    ],
)
async def test_a_parameter_that_is_refused_is_left_out_and_remembered(
    engine, llm, message, status, param
) -> None:
    llm.script = refusing("temperature", "seed", message=message, status=status, param=param)
    asked = replace(ASKED, sampling=Sampling(temperature=0.2, top_p=0.9, seed=3))
    assert said(await answer(engine, asked)) == "On GPU 1 [1]."
    assert [("temperature" in e.body, "seed" in e.body) for e in llm.exchanges] == [
        (True, True),
        (False, True),
        (False, False),
    ]
    await answer(engine, asked)
    assert len(llm.exchanges) == 4
    assert llm.exchanges[-1].body["top_p"] == 0.9


async def test_a_value_that_is_refused_is_tried_again_the_next_time(engine, llm) -> None:
    llm.script = refusing("temperature", message="{} must be in [0, 1].")
    asked = replace(ASKED, sampling=Sampling(temperature=1.5))
    for _ in range(2):
        assert said(await answer(engine, asked)) == "On GPU 1 [1]."
    assert len(llm.exchanges) == 4


async def test_a_parameter_with_a_newer_name_gets_that(engine, llm) -> None:
    llm.script = refusing(
        "max_tokens",
        message="Unsupported parameter: '{}'. Use 'max_completion_tokens' instead.",
    )
    await answer(engine)
    assert llm.exchanges[-1].body["max_completion_tokens"] == 64


async def test_a_server_that_goes_on_refusing_is_not_asked_for_ever(engine, llm) -> None:
    async def script(exchange) -> None:
        await exchange.respond(400, b'{"error":{"message":"temperature is unsupported"}}')

    llm.script = script
    with pytest.raises(errors.Internal):
        await answer(engine, replace(ASKED, sampling=Sampling(temperature=0.2)))
    assert len(llm.exchanges) == 2


async def test_a_schema_that_is_refused_is_its_callers_fault(engine, llm) -> None:
    async def script(exchange) -> None:
        await exchange.respond(400, b'{"error":{"message":"response_format: not supported"}}')

    llm.script = script
    with pytest.raises(errors.InvalidInput, match="json_schema"):
        await answer(engine, replace(ASKED, json_schema='{"type": "object"}'))


OVERFLOWS = [
    # vLLM, older and newer
    "This model's maximum context length is 900 tokens. However, you requested 1200 tokens "
    "(1136 in the messages, 64 in the completion). Please reduce the length of the messages.",
    "'max_tokens' or 'max_completion_tokens' is too large: 64. This model's maximum context length "
    "is 900 tokens and your request has 1136 input tokens (64 > 900 - 1136).",
    "You passed 1136 input tokens and requested 64 output tokens. However, the model's context "
    "length is only 900 tokens.",
    "This model's maximum context length is 900 tokens, but the prompt contains 1136 input tokens",
    "This model's maximum context length is 900 tokens. However, your prompt contains at least 901 "
    "input tokens, which exceeds this limit even without any output tokens.",
    # OpenAI, llama.cpp, TGI, Ollama, Anthropic's
    "This model's maximum context length is 900 tokens. However, your messages resulted in 1136 "
    "tokens.",
    "the request exceeds the available context size, try increasing it",
    "request (1136 tokens) exceeds the available context size (900 tokens), try increasing it",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 900. Given: 1136 "
    "`inputs` tokens and 64 `max_new_tokens`",
    "the input length exceeds the context length",
    "prompt is too long: 1136 tokens > 900 maximum",
]


@pytest.mark.parametrize("message", OVERFLOWS)
async def test_a_prompt_that_is_too_long_is_sent_once_more_with_fewer_passages(
    engine, llm, message
) -> None:
    lengths: list[int] = []

    async def script(exchange) -> None:
        lengths.append(len(exchange.body["messages"][-1]["content"]))
        if len(lengths) == 1:
            await exchange.respond(400, json.dumps({"error": {"message": message}}).encode())
        else:
            await exchange.stream("On GPU 0 [1].")

    llm.script = script
    events = await answer(engine)
    assert said(events) == "On GPU 0 [1]."
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.dropped, "it says which passages were not read"
    assert len(lengths) == 2
    least = 0.1 if "at least" in message else 0.2
    assert least < lengths[1] / lengths[0] < 0.8


@pytest.mark.parametrize("status", [400, 413, 422, 500])
async def test_a_prompt_that_stays_too_long_is_never_the_callers_fault(engine, llm, status) -> None:
    async def script(exchange) -> None:
        body = b'{"error":{"code":"context_length_exceeded","message":"too long"}}'
        await exchange.respond(status, body)

    llm.script = script
    with pytest.raises((errors.Internal, errors.Unavailable)):
        await answer(engine)
    assert len(llm.exchanges) == (1 if status == 500 else 2)


async def test_an_overflow_inside_the_stream_counts_too(engine, llm, closing, frame) -> None:
    async def script(exchange) -> None:
        await exchange.begin()
        if len(llm.exchanges) == 1:
            await exchange.chunk(
                b'data: {"error": {"code": 400, "message": "exceeds the context size"}}\n\n'
            )
        else:
            await exchange.chunk(frame("On GPU 0 [1].") + closing())
        await exchange.end()

    llm.script = script
    assert said(await answer(engine)) == "On GPU 0 [1]."


@pytest.mark.parametrize(("status", "error"), [(429, errors.Overloaded), (503, errors.Unavailable)])
async def test_a_server_that_wants_to_be_left_alone_is_not_asked(
    engine, llm, status, error
) -> None:
    async def script(exchange) -> None:
        await exchange.respond(status, b"{}", "retry-after: 5")

    llm.script = script
    with pytest.raises(error) as first:
        await answer(engine)
    with pytest.raises(error, match="asked for no calls") as second:
        await answer(engine)
    assert len(llm.exchanges) == 1
    assert first.value.is_final
    assert second.value.is_final
    assert 0 < second.value.retry_after_s <= 5


async def test_a_busy_server_that_names_no_time_is_asked_the_next_question(engine, llm) -> None:
    async def script(exchange) -> None:
        await exchange.respond(429, b"{}")

    llm.script = script
    for _ in range(2):
        with pytest.raises(errors.Overloaded):
            await answer(engine)
    assert len(llm.exchanges) == 2


def test_nobody_is_left_alone_for_ever() -> None:
    now = 0.0
    hold_off = HoldOff(lambda: now)
    hold_off.note(errors.Overloaded("full."), 3_600)
    with pytest.raises(errors.Overloaded) as caught:
        hold_off.check()
    assert caught.value.retry_after_s == 60
    now = 61
    hold_off.check()
