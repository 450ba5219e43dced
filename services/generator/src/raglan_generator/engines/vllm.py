"""vLLM in the process: `AsyncLLM` behind the interface of a language model.

What vLLM leaves to its caller is done here: deadlines, fair priorities, a queue that is bounded,
an end to every request that was begun, and an eye on whether it still moves.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import math
import multiprocessing
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence, Set
from contextlib import aclosing
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from raglan.deadline import Deadline
from raglan.errors import (
    DeadlineExceeded,
    Internal,
    InvalidInput,
    Overloaded,
    RaglanError,
    Unavailable,
)
from raglan.health import Health

from raglan_generator.chat_tokenizer import HuggingFaceTokenizer
from raglan_generator.engines import vllm_outputs
from raglan_generator.engines import vllm_preflight as preflight
from raglan_generator.engines.vllm_options import (
    LORA_RANKS,
    DraftModel,
    VllmOptions,
    engine_arguments,
    priority,
    trace_headers,
)
from raglan_generator.engines.vllm_progress import Counters, Progress
from raglan_generator.generation import EngineInfo, Load, Request, Sampling
from raglan_generator.language_model import (
    End,
    Message,
    Piece,
    Prompt,
    Text,
    Thinking,
    Tokenizer,
    begun_within,
)

ENVIRONMENT: Final = {
    # A fork of a process that serves gRPC inherits its sockets and its locks.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_NO_USAGE_STATS": "1",
    # Its lines pass our handler, which knows what to withhold.
    "VLLM_CONFIGURE_LOGGING": "0",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}
"""Environment variables set for vLLM unless they are set already."""

_MAX_LORAS: Final = 8
"""Adapters that one step may mix: each takes memory, so that more of them take turns."""

_WARM_UP_S: Final = 120.0
_WARM_UP_TOKENS: Final = 4
_ABORT_S: Final = 2.0
_STOP_S: Final = 3.0
"""Time the engine's idle process has to exit, in seconds."""
_GIVE_UP_S: Final = 30.0
_POLL_S: Final = 0.02


class VllmModel:
    """One model in one engine, which is a process of its own; `start` loads it."""

    def __init__(
        self,
        model: str,
        options: VllmOptions,
        *,
        adapters: Mapping[str, str] | None = None,
        max_model_len: int | None = None,
        sampling: Sampling | None = None,
        shutdown_timeout_s: float = 10.0,
    ) -> None:
        """Nothing is read before `start`.

        Args:
            model: a folder, or a hub id.
            options: vLLM's other settings.
            adapters: LoRA adapters, the name that requests use to the folder.
            max_model_len: tokens of prompt and answer together; None for the model's own.
            sampling: where a request does not say.
            shutdown_timeout_s: that running answers get to finish in `close`.
        """
        self._model = model
        self._options = options
        self._adapters = dict(adapters or {})
        self._max_model_len = max_model_len
        self._sampling = sampling or Sampling()
        self._shutdown_timeout_s = shutdown_timeout_s
        self._vllm: Any = None  # the module that imports vLLM
        self._engine: Any = None
        self._tokenizer: Tokenizer | None = None
        self._reasoning: Any = None  # of `vllm_engine`, where the settings name a parser
        self._loading: threading.Thread | None = None
        self._others: set[BaseProcess] = set()
        """Children of this process when the load began."""
        self._closing = False
        self._running: set[str] = set()
        self._aborts: set[asyncio.Future[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._mean_answer_s = 1.0
        self._counters = Counters()
        self._progress = Progress(options.stalled_after_s, time.monotonic)
        self._info = EngineInfo(engine="vllm", model=_name_of(model), revision=options.revision)

    @property
    def info(self) -> EngineInfo:
        """Device, number format and limits are known after `start`."""
        return self._info

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own, with its chat template."""
        if self._tokenizer is None:
            raise Unavailable("The generator has not started.")
        return self._tokenizer

    def load(self) -> Load:
        """Load at the engine's last step."""
        return self._counters.load()

    def health(self) -> Health:
        """DEAD when the engine's process is gone, STALLED when it owes a sign of life too long."""
        if self._engine is not None and self._engine.dead and not self._closing:
            return Health.DEAD
        return Health.STALLED if self._progress.stalled else Health.SERVING

    async def start(self) -> None:
        """Load model and adapters, answer once.

        Raises:
            InvalidInput: a setting that cannot be; the message names it.
            Unavailable: vLLM or the model is not there, or the device too small.
        """
        preflight.check_version()
        await self._load()
        await self._engine.load_adapters()
        await self._warm_up()

    async def close(self) -> None:
        """Let running answers finish for `shutdown_timeout_s`, end the others, stop the engine."""
        self._closing = True
        if self._loading is not None and self._loading.is_alive():
            await _give_up(self._loading, self._others)
        if self._engine is None:
            return
        await self._until_idle(self._shutdown_timeout_s)
        if self._running and not self._engine.dead:
            await self._engine.abort(sorted(self._running))
            await self._until_idle(_ABORT_S)
        await self._engine.shutdown(_STOP_S)

    async def stream(
        self, prompt: Prompt, request: Request, deadline: Deadline
    ) -> AsyncGenerator[Piece | End]:
        """See `LanguageModel.stream`. Text that arrives between two reads is yielded as one."""
        engine = self._started()
        deadline.check("the answer was begun")
        ask = await self._ask(prompt, request)
        request_id: str = engine.next_id()
        tokens = unsent = 0
        began = time.monotonic()
        self._running.add(request_id)
        self._idle.clear()
        first_given = self._progress.given()
        expiry = self._expiring(request_id, deadline)
        try:
            async with aclosing(engine.generate(ask, request_id)) as outputs:
                split = self._splitter(ask.token_ids)
                async for output in outputs:
                    piece = output.outputs[0]
                    tokens += len(piece.token_ids)
                    unsent += len(piece.token_ids)
                    thinking, text = split(piece.text, piece.token_ids, output.finished)
                    if thinking:
                        yield Thinking(thinking, unsent)
                        unsent = 0
                    if text:
                        yield Text(text, unsent)
                        unsent = 0
            end = vllm_outputs.end_of(output, tokens, deadline)
            self._ended(time.monotonic() - began)
            yield end
        except RaglanError:
            raise
        except Exception as error:
            raised = self._vllm.to_raglan(
                error, dead=engine.dead, retry_after_s=self._retry_after_s()
            )
            if isinstance(raised, InvalidInput | Overloaded) and first_given and not self._busy():
                self._progress.refused()
            raise raised from error
        finally:
            expiry.cancel()
            self._running.discard(request_id)
            if not self._running:
                self._idle.set()
            # Also a request that was taken back is answered for, by a step without it.
            if self._counters.busy:
                self._progress.given()

    def _splitter(
        self, token_ids: Sequence[int]
    ) -> Callable[[str, Sequence[int], bool], tuple[str, str]]:
        """Separates reasoning from text in one answer; without a parser all is text."""
        if self._reasoning is None:
            return lambda text, ids, finished: ("", text)
        splitter: Callable[[str, Sequence[int], bool], tuple[str, str]] = self._reasoning.splitter(
            token_ids
        )
        return splitter

    def _expiring(self, request_id: str, deadline: Deadline) -> asyncio.TimerHandle:
        """Abort the request at its deadline: one timer an answer, where one a token costs 4 us."""

        def expire() -> None:
            abort = asyncio.ensure_future(self._engine.abort([request_id]))
            self._aborts.add(abort)
            abort.add_done_callback(self._aborts.discard)

        return asyncio.get_running_loop().call_later(deadline.remaining_s(), expire)

    def _started(self) -> Any:
        if self._engine is None or self._closing:
            raise Unavailable("The generator has not started, or is stopping.")
        return self._engine

    async def _ask(self, prompt: Prompt, request: Request) -> Any:
        if request.adapter and request.adapter not in self._adapters:
            known = ", ".join(sorted(self._adapters)) or "none"
            raise InvalidInput(
                f"adapter is {request.adapter!r}; the adapters are: {known} "
                "(RAGLAN_GENERATOR_ADAPTERS)."
            )
        token_ids = prompt.token_ids
        if token_ids is None:
            rendered = await asyncio.to_thread(self.tokenizer.render, prompt.messages)
            token_ids = rendered.token_ids
        if token_ids is None:
            raise Internal("The prompt has no tokens.")
        room = self.tokenizer.max_model_len - len(token_ids)
        if room < 1:
            raise InvalidInput(
                f"The prompt has {len(token_ids)} tokens; the model takes "
                f"{self.tokenizer.max_model_len}, the answer included "
                "(RAGLAN_GENERATOR_MAX_MODEL_LEN)."
            )
        asked, usual, options = request.sampling, self._sampling, self._options
        return self._vllm.Ask(
            token_ids=token_ids,
            max_tokens=min(request.max_tokens, room),
            temperature=_first(asked.temperature, usual.temperature, 0.0),
            top_p=_first(asked.top_p, usual.top_p, 1.0),
            seed=asked.seed if asked.seed is not None else usual.seed,
            stop=asked.stop or usual.stop,
            json_schema=request.json_schema,
            adapter=request.adapter,
            cache_salt=request.tenant or None,
            priority=priority(request.lane, time.monotonic(), options.bulk_wait_s),
            trace_headers=trace_headers(request.trace_headers, options),
            skip_special_tokens=self._reasoning is None or self._reasoning.skip_special_tokens,
        )

    def _record(self, stats: Any) -> None:
        self._counters.record(stats)
        self._progress.moved(busy=self._counters.busy or bool(self._running))

    def _busy(self) -> bool:
        """Return whether the engine has work besides one request."""
        return self._counters.busy or len(self._running) > 1

    def _ended(self, seconds: float) -> None:
        """An answer came to its end, so that the engine owes nothing for it."""
        self._mean_answer_s += 0.1 * (seconds - self._mean_answer_s)
        self._progress.moved(busy=len(self._running) > 1)

    def _retry_after_s(self) -> float:
        """Estimate when as many answers as now wait will have ended, from recent durations."""
        load = self._counters.load()
        return max(0.1, self._mean_answer_s * (1 + load.waiting) / max(1, load.running))

    # --- Start and stop ---------------------------------------------------------------------------

    async def _load(self) -> None:
        """Run `_open` in a thread that does not outlive the process if loading is abandoned."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def settle(error: Exception | None) -> None:
            if not done.done():
                done.set_exception(error) if error else done.set_result(None)

        def run() -> None:
            error: Exception | None = None
            try:
                self._open()
            except Exception as raised:  # noqa: BLE001 - raised again where it is awaited
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: no waiter
                loop.call_soon_threadsafe(settle, error)

        self._others = set(multiprocessing.active_children())
        self._loading = threading.Thread(target=run, name="vllm-load", daemon=True)
        self._loading.start()
        await done

    def _open(self) -> None:
        """All that blocks: check what can be checked first, then load."""
        options = self._options
        folder = preflight.folder_of(self._model, options.revision, "RAGLAN_GENERATOR_MODEL")
        if isinstance(options.speculation, DraftModel):
            draft = options.speculation
            preflight.folder_of(draft.model, draft.revision or "", "RAGLAN_GENERATOR_SPECULATION")
        rank = preflight.largest_rank(self._adapters, LORA_RANKS[-1])
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        vllm = importlib.import_module("raglan_generator.engines.vllm_engine")
        self._vllm = vllm
        config = vllm.config_of(
            engine_arguments(
                options,
                model=self._model,
                max_model_len=self._max_model_len,
                max_loras=min(len(self._adapters), _MAX_LORAS),
                max_lora_rank=rank,
                shutdown_timeout_s=math.ceil(self._shutdown_timeout_s),
            )
        )
        self._info = vllm.described(config, self._info, tuple(self._adapters))
        quantising = bool(options.quantization)
        weights = 0
        if options.load_format != "dummy":
            weights = preflight.weights_bytes(folder, self._info.dtype, quantising=quantising)
        preflight.check_memory(vllm.memory_of(config, weights))
        if options.reasoning_parser:
            self._reasoning = vllm.Reasoning(options.reasoning_parser, vllm.tokenizer_of(config))
        self._tokenizer = HuggingFaceTokenizer(
            vllm.tokenizer_of(config),
            self._info.limits["max_model_len"],
            reads_thinking=self._reasoning is None,
        )
        self._engine = vllm.Engine(config, self._adapters, self._record)

    async def _warm_up(self) -> None:
        """Answer once: what the first answer compiles or allocates is done before SERVING."""
        request = Request("", (), max_tokens=_WARM_UP_TOKENS)
        messages: tuple[Message, ...] = ({"role": "user", "content": "Hello"},)
        deadline = Deadline.after(_WARM_UP_S)
        answer = begun_within(
            self.stream(Prompt(messages, ()), request, deadline), request, deadline
        )
        try:
            async with aclosing(answer) as pieces:
                async for _ in pieces:
                    pass
        except DeadlineExceeded:
            raise Unavailable(
                f"vLLM has loaded the model, but did not answer in {_WARM_UP_S:g} s."
            ) from None

    async def _until_idle(self, limit_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._idle.wait()


async def _give_up(loading: threading.Thread, others: Set[BaseProcess]) -> None:
    """End an abandoned load: without its processes it fails. `others` stay."""
    limit = Deadline.after(_GIVE_UP_S)
    while loading.is_alive() and limit.remaining_s():
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        await asyncio.sleep(_POLL_S)


def _first(*values: float | None) -> float:
    """The first that is set; the last one always is."""
    return next(value for value in values if value is not None)


def _name_of(model: str) -> str:
    """Of a folder its name, of a hub id all of it."""
    return Path(model).name if Path(model).is_dir() else model
