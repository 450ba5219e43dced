"""The openai engine against a real socket that streams, stalls, fails and hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace

import pytest
from raglan import errors
from raglan.deadline import Deadline
from raglan_generator.answering import Answering
from raglan_generator.engines.openai_response import Timeouts
from raglan_generator.generation import (
    ABSTENTION,
    Citation,
    Delta,
    Event,
    Finished,
    FinishReason,
    Passage,
    Request,
    Role,
    Sampling,
    Turn,
    Usage,
)

KEY = "sk-very-secret"
QUOTE = "The reranker runs on the second GPU."
PASSAGES = (Passage(f"Raglan pins devices. {QUOTE}", start=100),)
ASKED = Request("Where does the reranker run?", PASSAGES, max_tokens=64)


@pytest.fixture
async def engine(llm, asking_openai) -> AsyncIterator[Answering]:
    timeouts = Timeouts(connect_s=1, first_token_s=0.3, idle_s=0.3)
    engine = asking_openai(llm.base_url, key=KEY, timeouts=timeouts)
    await engine.start()
    yield engine
    await engine.close()


async def answer(engine: Answering, request: Request = ASKED, seconds: float = 5) -> list[Event]:
    async with aclosing(engine.generate(request, Deadline.after(seconds))) as events:
        return [event async for event in events]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def scripted(*pieces: bytes):
    """Send each piece as a chunk of its own and end the response."""

    async def script(exchange) -> None:
        await exchange.begin()
        for piece in pieces:
            await exchange.chunk(piece)
            await asyncio.sleep(0)
        await exchange.end()

    return script


async def test_an_answer_arrives_with_citation_usage_and_confidence(engine, llm) -> None:
    async def script(exchange) -> None:
        await exchange.stream("The reranker runs ", "on the second GPU. [", "1]")

    llm.script = script
    events = await answer(engine)
    assert text_of(events) == "The reranker runs on the second GPU. [1]"
    assert events[-2] == Citation(1, 0, QUOTE, 121, 121 + len(QUOTE))
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert (finished.reason, finished.usage) == (FinishReason.STOP, Usage(11, 7))
    assert (finished.support.groundedness, finished.model) == (1.0, "tiny")
    text = text_of(events)
    assert [text[c.start : c.end] for c in finished.support.claims] == [text]


async def test_the_request_carries_model_limit_key_and_asks_for_usage(engine, llm) -> None:
    async def script(exchange) -> None:
        await exchange.stream("x")

    llm.script = script
    await answer(engine)
    sent = llm.exchanges[0]
    assert sent.path == "/v1/chat/completions"
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert (sent.body["model"], sent.body["max_tokens"], sent.body["stream"]) == ("tiny", 64, True)
    assert sent.body["stream_options"] == {"include_usage": True}


async def test_sampling_schema_and_adapter_reach_the_server(engine, llm) -> None:
    async def script(exchange) -> None:
        await exchange.stream('{"gpus": ', "[1]}")

    llm.script = script
    events = await answer(
        engine,
        replace(
            ASKED,
            adapter="legal",
            json_schema='{"type": "object"}',
            sampling=Sampling(temperature=0.7, top_p=0.9, seed=3, stop=("END",)),
        ),
    )
    sent = llm.exchanges[0].body
    assert (sent["model"], sent["temperature"], sent["top_p"]) == ("tiny-legal", 0.7, 0.9)
    assert (sent["seed"], sent["stop"]) == (3, ["END"])
    assert sent["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert text_of(events) == '{"gpus": [1]}', "an array is no marker"


async def test_an_unknown_adapter_is_refused_with_the_known_ones(engine, llm) -> None:
    with pytest.raises(errors.InvalidInput, match="'fiscal'; known are legal"):
        await answer(engine, replace(ASKED, adapter="fiscal"))
    assert llm.exchanges == []


async def test_a_question_that_shares_no_word_with_a_passage_is_sent(engine, llm) -> None:
    async def script(exchange) -> None:
        await exchange.stream("Auf der zweiten GPU [1].")

    llm.script = script
    events = await answer(engine, replace(ASKED, question="Wo laeuft das Umsortieren?"))
    assert text_of(events) == "Auf der zweiten GPU [1]."
    assert len(llm.exchanges) == 1


@pytest.mark.parametrize(
    ("question", "similarity", "sent"),
    [
        ("Who won the cup?", 0.1, 0),
        ("Where does the reranker run?", None, 1),
        ("Wo laeuft das Umsortieren?", 0.7, 1),
    ],
)
async def test_where_a_setting_wants_relevance_words_or_meaning_suffice(
    llm, asking_openai, question, similarity, sent
) -> None:
    async def script(exchange) -> None:
        await exchange.stream("On the second GPU [1].")

    llm.script = script
    engine = asking_openai(llm.base_url, min_relevance=0.4)
    await engine.start()
    passages = (replace(PASSAGES[0], similarity=similarity),)
    events = await answer(engine, replace(ASKED, question=question, passages=passages))
    assert (events[-1].reason is FinishReason.ABSTAINED) == (not sent)
    assert len(llm.exchanges) == sent
    await engine.close()


async def test_a_question_within_a_conversation_is_always_sent(engine, llm) -> None:
    async def script(exchange) -> None:
        await exchange.stream("Yes.")

    llm.script = script
    history = (Turn(Role.USER, "Tell me of the reranker."), Turn(Role.ASSISTANT, "It reranks."))
    await answer(engine, replace(ASKED, question="Why?", history=history))
    assert len(llm.exchanges) == 1


async def test_an_answer_that_does_not_begin_in_time_is_ended(engine, llm) -> None:
    async def script(exchange) -> None:
        await exchange.left()

    llm.script = script
    with pytest.raises(errors.DeadlineExceeded, match="did not begin in time"):
        await answer(engine, replace(ASKED, first_token_s=0.1))
    await asyncio.wait_for(llm.closed.wait(), 2)


async def test_who_would_begin_too_late_is_refused_until_nobody_is_ahead(
    llm, frame, closing, asking_openai
) -> None:
    engine = asking_openai(llm.base_url)
    await engine.start()
    may_go_on = asyncio.Event()

    async def slow(exchange) -> None:
        await exchange.begin()
        await asyncio.sleep(1)
        await exchange.chunk(frame("Yes"))
        await may_go_on.wait()
        await exchange.chunk(closing())
        await exchange.end()

    llm.script = slow
    hurried = replace(ASKED, first_token_s=0.2)
    async with AsyncExitStack() as held:
        # One answer moves the estimate a little; many make it certain.
        answers = [engine.generate(ASKED, Deadline.after(10)) for _ in range(20)]
        for each in answers:
            await held.enter_async_context(aclosing(each))
        await asyncio.gather(*(anext(each) for each in answers))
        with pytest.raises(errors.Overloaded, match="would begin in") as caught:
            await answer(engine, hurried)
        assert caught.value.retry_after_s > 0
    asked = len(llm.exchanges)
    with pytest.raises(errors.DeadlineExceeded, match="did not begin"):
        await answer(engine, hurried)
    assert len(llm.exchanges) == asked + 1, "with nobody ahead it is tried"
    may_go_on.set()
    await engine.close()


@pytest.mark.parametrize("size", [1, 2, 7, 100_000])
async def test_frames_may_be_split_and_merged_anywhere(engine, llm, size, frame, closing) -> None:
    whole = frame("The réranker 😀 runs [") + b": a comment\n\n" + frame("1].") + closing()
    llm.script = scripted(*(whole[i : i + size] for i in range(0, len(whole), size)))
    events = await answer(engine)
    assert text_of(events) == "The réranker 😀 runs [1]."


async def test_one_connection_serves_many_answers(engine, llm) -> None:
    async def script(exchange) -> None:
        await exchange.stream("x")

    llm.script = script
    for _ in range(3):
        await answer(engine)
    assert (len(llm.exchanges), llm.connections) == (3, 1)


async def test_without_passages_nobody_is_asked(engine, llm) -> None:
    events = await answer(engine, Request("Why?", ()))
    assert text_of(events) == ABSTENTION
    assert events[-1].reason is FinishReason.ABSTAINED
    assert llm.exchanges == []


async def test_the_models_abstention_ends_the_answer_as_abstained(engine, llm) -> None:
    async def script(exchange) -> None:
        await exchange.stream(ABSTENTION)

    llm.script = script
    finished = (await answer(engine))[-1]
    assert (finished.reason, finished.support.confidence) == (FinishReason.ABSTAINED, 0)


async def test_an_answer_cut_at_the_limit_says_so(engine, llm) -> None:
    async def script(exchange) -> None:
        await exchange.stream("The reranker", reason="length")

    llm.script = script
    assert (await answer(engine))[-1].reason is FinishReason.LENGTH


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (401, b'{"error":{"message":"bad key sk-very-secret"}}', errors.Internal, "API_KEY"),
        (403, b"", errors.Internal, "API_KEY"),
        (404, b'{"error":{"message":"no such model"}}', errors.Internal, "GENERATOR_MODEL"),
        (
            400,
            b'{"error":{"message":"bad role sk-very-secret"}}',
            errors.Internal,
            "refused the req",
        ),
        (
            422,
            b'{"detail":[{"loc":["body","n"],"msg":"extra"}]}',
            errors.Internal,
            "refused the req",
        ),
        (413, b"", errors.Internal, "MAX_MODEL_LEN"),
        (500, b"<html>oops</html>", errors.Unavailable, "failed .500."),
        (503, b"[]", errors.Unavailable, "failed .503."),
        (302, b"", errors.Internal, "BASE_URL"),
    ],
)
async def test_a_refusal_becomes_a_typed_error_without_the_key(
    engine, llm, status, body, error, message
) -> None:
    async def script(exchange) -> None:
        await exchange.respond(status, body)

    llm.script = script
    with pytest.raises(error, match=message) as caught:
        await answer(engine)
    assert KEY not in str(caught.value) + caught.value.cause
    assert caught.value.is_final


@pytest.mark.parametrize(("header", "seconds"), [("7", 7), ("soon", 1)])
async def test_an_overloaded_server_says_when_to_return(engine, llm, header, seconds) -> None:
    async def script(exchange) -> None:
        await exchange.respond(429, b"{}", f"retry-after: {header}")

    llm.script = script
    with pytest.raises(errors.Overloaded) as caught:
        await answer(engine)
    assert caught.value.retry_after_s == seconds


async def test_a_web_page_with_status_200_is_no_answer(engine, llm) -> None:
    async def script(exchange) -> None:
        await exchange.begin("text/html")
        await exchange.chunk(b"<html>Sign in</html>")
        await exchange.end()

    llm.script = script
    with pytest.raises(errors.Unavailable, match="event stream"):
        await answer(engine)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b'{"error":{"message":"boom","code":500}}', errors.Unavailable),
        (b'{"error":{"message":"slow down","code":429}}', errors.Overloaded),
        (b'{"error":"boom"}', errors.Unavailable),
        (b"not json", errors.Unavailable),
        (b'["list"]', errors.Unavailable),
        (b'{"choices":[7]}', errors.Unavailable),
    ],
)
async def test_an_error_inside_the_stream_is_raised_and_never_said(
    engine, llm, data, error, frame
) -> None:
    llm.script = scripted(frame("The reranker"), b"data: " + data + b"\n\n")
    said = []
    with pytest.raises(error):
        async for event in engine.generate(ASKED, Deadline.after(5)):
            said.append(event)
    assert text_of(said) == "The reranker"


async def test_tokens_that_come_together_go_on_together_up_to_an_error(
    engine, llm, frame, closing
) -> None:
    llm.script = scripted(frame("The ") + frame("reranker"), closing())
    assert [e.text for e in await answer(engine) if isinstance(e, Delta)] == ["The reranker"]

    bad = b'data: {"error":{"message":"boom","code":500}}\n\n'
    llm.script = scripted(frame("The ") + frame("reranker") + bad + frame("never"))
    said = []
    with pytest.raises(errors.Unavailable):
        async for event in engine.generate(ASKED, Deadline.after(5)):
            said.append(event)
    assert said == [Delta("The reranker")]


async def test_a_connection_lost_in_mid_frame_is_an_error(engine, llm, frame) -> None:
    async def script(exchange) -> None:
        await exchange.begin()
        await exchange.chunk(frame("The reranker") + b'data: {"choices": [{"del')
        exchange.writer.close()

    llm.script = script
    said = []
    with pytest.raises(errors.Unavailable, match="before the end"):
        async for event in engine.generate(ASKED, Deadline.after(5)):
            said.append(event)
    assert text_of(said) == "The reranker"
    assert len(llm.exchanges) == 1


async def test_a_stream_that_ends_without_a_reason_is_an_error(engine, llm, frame) -> None:
    llm.script = scripted(frame("The reranker"))
    with pytest.raises(errors.Unavailable, match="before the end"):
        await answer(engine)


async def test_an_answer_without_a_word_is_an_error(engine, llm, closing) -> None:
    llm.script = scripted(closing())
    with pytest.raises(errors.Unavailable, match="without a word"):
        await answer(engine)


async def test_a_server_that_is_not_there_is_unavailable(asking_openai) -> None:
    engine = asking_openai("http://127.0.0.1:9/v1")
    await engine.start()
    with pytest.raises(errors.Unavailable, match="cannot be reached"):
        await answer(engine)
    await engine.close()


async def test_a_server_that_holds_its_first_token_is_given_up(engine, llm) -> None:
    async def script(exchange) -> None:
        await exchange.left()

    llm.script = script
    with pytest.raises(errors.Unavailable, match="FIRST_TOKEN_TIMEOUT"):
        await answer(engine)
    await asyncio.wait_for(llm.closed.wait(), 2)


async def test_comments_do_not_count_as_a_first_token(engine, llm) -> None:
    async def script(exchange) -> None:
        await exchange.begin()
        while True:
            await exchange.chunk(b": still here\n\n")
            await asyncio.sleep(0.02)

    llm.script = script
    with pytest.raises(errors.Unavailable, match="FIRST_TOKEN_TIMEOUT"):
        await answer(engine)


async def test_a_server_that_stalls_between_tokens_is_given_up(engine, llm, frame) -> None:
    async def script(exchange) -> None:
        await exchange.begin()
        await exchange.chunk(frame("The reranker"))
        await exchange.left()

    llm.script = script
    with pytest.raises(errors.Unavailable, match="IDLE_TIMEOUT"):
        await answer(engine)
    await asyncio.wait_for(llm.closed.wait(), 2)


async def test_a_stalled_answer_ends_at_the_deadline(engine, llm, frame) -> None:
    async def script(exchange) -> None:
        await exchange.begin()
        await exchange.chunk(frame("The reranker"))
        await exchange.left()

    llm.script = script
    # Not Unavailable, as when the server stalls for longer than it may.
    with pytest.raises(errors.DeadlineExceeded):
        await answer(engine, seconds=0.15)


async def test_leaving_the_stream_closes_the_upstream_connection(engine, llm, frame) -> None:
    async def script(exchange) -> None:
        await exchange.begin()
        await exchange.chunk(frame("The reranker"))
        await exchange.left()

    llm.script = script
    async with aclosing(engine.generate(ASKED, Deadline.after(30))) as events:
        assert await anext(events) == Delta("The reranker")
    await asyncio.wait_for(llm.closed.wait(), 0.25)
