"""vLLM's `AsyncLLM` without any server: what there is to gain at most.

Run by the environment of vLLM, this file answers on its standard output what it is asked on its
standard input; `floor` runs it so.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from generator_servers import Asked, Engine
    from load import Answers


class Floor:
    """A process with an engine."""

    def __init__(self, running: subprocess.Popen[str]) -> None:
        self._running = running

    def run(self, asked: Sequence[Asked], clients: int) -> Answers:
        """Answer them, so many at a time; processor time is the server's here."""
        from load import Answers

        bodies = [json.loads(each.for_peer) for each in asked]
        return Answers(**self._ask({"bodies": bodies, "clients": clients}))

    def _ask(self, message: dict[str, Any]) -> Any:
        assert self._running.stdin is not None
        assert self._running.stdout is not None
        self._running.stdin.write(json.dumps(message) + "\n")
        self._running.stdin.flush()
        # vLLM may print lines of its own.
        for line in self._running.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError("The process with AsyncLLM ended; its output is above.")


@contextmanager
def floor(engine: Engine) -> Iterator[Floor]:
    """Loaded and warm until the block ends."""
    from generator_servers import PYTHON

    arguments = asdict(engine) | {"model": str(engine.model)}
    running = subprocess.Popen(
        [str(PYTHON), __file__, json.dumps(arguments)],
        env=os.environ | engine.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Floor(running)
    finally:
        assert running.stdin is not None
        running.stdin.close()
        try:
            running.wait(30)
        except subprocess.TimeoutExpired:
            running.kill()


async def _answer_all(llm: Any, tokenizer: Any, bodies: Sequence[Any], clients: int) -> Any:
    # Prompts are tokenised beforehand: a floor.
    prompts = [
        (
            tokenizer.apply_chat_template(
                body["messages"], add_generation_prompt=True, return_dict=False
            ),
            body["max_tokens"],
        )
        for body in bodies
    ]
    source = iter(enumerate(prompts))
    found: dict[str, list[Any]] = {
        name: [] for name in ("due", "sent", "began", "done", "status", "read", "written")
    }
    begun = time.perf_counter()

    async def client() -> None:
        for _, (prompt, tokens) in source:
            sent = time.perf_counter() - begun
            began, written = await _answer(llm, prompt, tokens)
            row = (sent, sent, began - begun, time.perf_counter() - begun, "OK", len(prompt))
            for name, value in zip(found, (*row, written), strict=True):
                found[name].append(value)

    before = time.process_time()
    await asyncio.gather(*(client() for _ in range(clients)))
    seconds = time.perf_counter() - begun
    return found | {"seconds": seconds, "cpu_seconds": time.process_time() - before}


async def _answer(llm: Any, prompt: list[int], tokens: int) -> tuple[float, int]:
    from vllm.inputs import TokensPrompt
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    parameters = SamplingParams(
        temperature=0, max_tokens=tokens, output_kind=RequestOutputKind.DELTA
    )
    began, written = 0.0, 0
    name = f"{time.perf_counter_ns()}-{id(prompt)}"
    async for output in llm.generate(TokensPrompt(prompt_token_ids=prompt), parameters, name):
        piece = output.outputs[0]
        written += len(piece.token_ids)
        if not began and piece.text:
            began = time.perf_counter()
    return began, written


async def _serve(told: dict[str, Any]) -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.tokenizers import get_tokenizer
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    told["speculative_config"] = told.pop("speculation") or None
    told.pop("kv_gib")
    context = UsageContext.OPENAI_API_SERVER
    arguments = AsyncEngineArgs(**told, disable_log_stats=True)
    llm = AsyncLLM.from_vllm_config(
        arguments.create_engine_config(usage_context=context),
        usage_context=context,
        disable_log_stats=True,
    )
    tokenizer = get_tokenizer(told["model"])
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            asked = json.loads(line)
            print(json.dumps(await _answer_all(llm, tokenizer, asked["bodies"], asked["clients"])))
            sys.stdout.flush()
    finally:
        llm.shutdown()


if __name__ == "__main__":
    # Not this folder's: its modules have names that others import.
    sys.path = [path for path in sys.path if Path(path).resolve() != Path(__file__).parent]
    import uvloop

    uvloop.run(_serve(json.loads(sys.argv[1])))
