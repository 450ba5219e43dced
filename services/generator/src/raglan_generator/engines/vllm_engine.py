"""The only module that imports vLLM, which takes ten seconds: import it in a thread.

vLLM is untyped to us: what comes from it is `Any` here and has a type of ours outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import psutil
from pydantic import ValidationError
from raglan.errors import Internal, InvalidInput, Overloaded, RaglanError, Unavailable
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.exceptions import (
    GracefulHTTPError,
    MaxQueuedTokensError,
    QueueOverflowError,
    RetryableRequestError,
    VLLMClientError,
)
from vllm.inputs import TokensPrompt
from vllm.inputs.engine import tokens_input
from vllm.lora.request import LoRARequest
from vllm.parser.parser_manager import ParserManager
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams
from vllm.tokenizers import get_tokenizer
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.loggers import PrometheusStatLogger

from raglan_generator.engines.vllm_preflight import Memory
from raglan_generator.generation import EngineInfo

_CONTEXT: Final = UsageContext.OPENAI_API_SERVER
"""Sizes batches for a server; any other context silently takes what suits a notebook."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request in the terms of vLLM."""

    token_ids: Sequence[int]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    stop: tuple[str, ...]
    json_schema: str
    adapter: str
    cache_salt: str | None
    priority: int
    trace_headers: Mapping[str, str] | None
    skip_special_tokens: bool = True


def config_of(arguments: Mapping[str, Any]) -> Any:
    """Build vLLM's whole configuration: read the model's and settle what was left open.

    Raises:
        InvalidInput: vLLM refuses an argument; the message is its own.
        Unavailable: the model cannot be read.
    """
    try:
        return AsyncEngineArgs(**arguments).create_engine_config(usage_context=_CONTEXT)
    except OSError as error:
        raise Unavailable(f"vLLM cannot read the model: {error}") from error
    except (ValueError, ImportError, NotImplementedError) as error:
        raise InvalidInput(f"vLLM refuses its settings: {_said(error)}") from error


def _said(error: Exception) -> str:
    """The error without the page around it."""
    if isinstance(error, ValidationError):
        return "; ".join(each["msg"] for each in error.errors(include_url=False))
    return str(error)


def described(config: Any, info: EngineInfo, adapters: tuple[str, ...]) -> EngineInfo:
    """`info` with what vLLM settled."""
    scheduler = config.scheduler_config
    return replace(
        info,
        device=str(current_platform.device_type),
        dtype=str(config.model_config.dtype).removeprefix("torch."),
        limits={
            "max_model_len": config.model_config.max_model_len,
            "max_num_seqs": scheduler.max_num_seqs,
            "max_num_batched_tokens": scheduler.max_num_batched_tokens,
            "max_num_queued_reqs": scheduler.max_num_queued_reqs,
            "max_num_queued_tokens": scheduler.max_num_queued_tokens,
        },
        adapters=adapters,
    )


def memory_of(config: Any, weights: int) -> Memory:
    """Compare the least memory that the model needs on each device with what is there.

    Args:
        config: from `config_of`.
        weights: bytes, over all devices.
    """
    devices = config.parallel_config.world_size
    kv, pool = _kv_bytes(config), config.cache_config.kv_cache_memory_bytes
    if current_platform.is_cpu():
        has = psutil.virtual_memory().available
        where = "which is the memory that is free"
    else:
        share = config.cache_config.gpu_memory_utilization
        has = int(current_platform.get_device_total_memory() * share)
        where = f"{share:g} of its memory (RAGLAN_GENERATOR_GPU_MEMORY_UTILIZATION)"
    return Memory(weights // devices, kv, pool, has, str(current_platform.device_type), where)


def _kv_bytes(config: Any) -> int:
    """Of keys and values of one request of full length on one device; 0 where layers differ."""
    model, parallel = config.model_config, config.parallel_config
    if model.is_hybrid or model.is_attention_free or model.get_sliding_window():
        return 0
    # Latent attention keeps one vector for both.
    vectors = 1 if model.use_mla else 2
    numbers = vectors * model.get_num_kv_heads(parallel) * model.get_head_size()
    cached = config.cache_config.cache_dtype
    width = model.dtype.itemsize if cached == "auto" else 1
    layers = model.get_num_layers(parallel)
    return int(layers * numbers * width * model.max_model_len)


def tokenizer_of(config: Any) -> Any:
    """The model's tokenizer, one that vLLM does not use itself."""
    model = config.model_config
    return get_tokenizer(
        model.tokenizer,
        tokenizer_mode=model.tokenizer_mode,
        revision=model.tokenizer_revision or model.revision,
    )


class Reasoning:
    """Separates reasoning from answer by a parser of vLLM.

    Args:
        name: of the parser.
        tokenizer: the model's; used on the event loop only.

    Raises:
        InvalidInput: there is no such parser, or the model lacks its tokens.
    """

    def __init__(self, name: str, tokenizer: Any) -> None:
        try:
            self._parser = ParserManager.get_parser(reasoning_parser_name=name, tokenizer=tokenizer)
            request = ChatCompletionRequest(model="", messages=[{"role": "user", "content": ""}])
            self._request = self._parser(tokenizer).adjust_request(request)
        except (TypeError, ValueError, KeyError, RuntimeError) as error:
            raise InvalidInput(f"RAGLAN_GENERATOR_REASONING_PARSER is {name!r}: {error}") from error
        self._tokenizer = tokenizer

    @property
    def skip_special_tokens(self) -> bool:
        """Return whether the text may come without them; some parsers look for theirs."""
        return bool(self._request.skip_special_tokens)

    def splitter(
        self, prompt: Sequence[int]
    ) -> Callable[[str, Sequence[int], bool], tuple[str, str]]:
        """Return the function that splits the deltas of one answer to `prompt`, in turn.

        Returns:
            A function of a delta's text and token ids, and whether it is the last; it returns the
            reasoning in it, and the text of the answer.
        """
        parser, prompt_ids = self._parser(self._tokenizer), list(prompt)

        def split(text: str, token_ids: Sequence[int], finished: bool) -> tuple[str, str]:
            delta = parser.parse_delta(
                text, list(token_ids), self._request, prompt_ids, finished=finished
            )
            return (delta.reasoning or "", delta.content or "") if delta is not None else ("", "")

        return split


class Engine:
    """An `AsyncLLM`, whose engine core is a process of its own."""

    def __init__(
        self, config: Any, adapters: Mapping[str, str], record: Callable[[Any], None]
    ) -> None:
        """Start it, which takes from seconds to minutes. Call from a thread.

        Args:
            config: from `config_of`.
            adapters: LoRA adapters, name to folder.
            record: called on the event loop with the `SchedulerStats` of each step.

        Raises:
            Unavailable: it did not start.
        """
        self._adapters = {
            name: LoRARequest(name, number, folder)
            for number, (name, folder) in enumerate(adapters.items(), 1)
        }
        self._numbers = itertools.count()
        try:
            self._llm = AsyncLLM.from_vllm_config(
                config,
                usage_context=_CONTEXT,
                stat_loggers=[_stat_logger(record)],
                disable_log_stats=True,
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise Unavailable(
                f"vLLM did not start: {error} What went wrong is in its log above."
            ) from error

    @property
    def dead(self) -> bool:
        """True once it will never answer again."""
        return bool(self._llm.errored)

    def next_id(self) -> str:
        """A name for a request, used once."""
        return str(next(self._numbers))

    async def load_adapters(self) -> None:
        """Read every adapter, so that a broken one shows at start.

        Raises:
            InvalidInput: one does not fit the model.
        """
        for name, adapter in self._adapters.items():
            try:
                await self._llm.add_lora(adapter)
            except Exception as error:
                if self.dead:
                    raise
                raise InvalidInput(
                    f"Adapter {name!r} in {adapter.lora_path} does not fit the model: {error}"
                ) from error

    def generate(self, ask: Ask, request_id: str) -> AsyncGenerator[Any]:
        """Its `RequestOutput`s. Deltas; those that the reader was too slow for come merged.

        Raises:
            ValueError: a value that `SamplingParams` refuses.
        """
        schema = StructuredOutputsParams(json=ask.json_schema) if ask.json_schema else None
        parameters = SamplingParams(
            temperature=ask.temperature,
            top_p=ask.top_p,
            seed=ask.seed,
            stop=list(ask.stop),
            max_tokens=ask.max_tokens,
            structured_outputs=schema,
            skip_special_tokens=ask.skip_special_tokens,
            output_kind=RequestOutputKind.DELTA,
        )
        outputs: AsyncGenerator[Any] = self._llm.generate(
            _prompt(ask),
            parameters,
            request_id,
            lora_request=self._adapters.get(ask.adapter),
            trace_headers=ask.trace_headers,
            priority=ask.priority,
        )
        return outputs

    async def abort(self, request_ids: Sequence[str]) -> None:
        """End these requests; their streams end with the reason `abort`."""
        with contextlib.suppress(EngineDeadError):  # then they have ended
            await self._llm.abort(request_ids)

    async def shutdown(self, timeout_s: float) -> None:
        """Stop the engine's process, by force after `timeout_s`."""
        # It would report the end of the process as a failure.
        if (reading := self._llm.output_handler) is not None:
            reading.cancel()
        await asyncio.to_thread(self._llm.shutdown, timeout=timeout_s)


def _prompt(ask: Ask) -> Any:
    token_ids = list(ask.token_ids)
    if not ask.json_schema:
        return tokens_input(token_ids, cache_salt=ask.cache_salt)
    # A schema is compiled to check it: the raw form of a prompt is taken in by a thread.
    prompt = TokensPrompt(prompt_token_ids=token_ids)
    if ask.cache_salt is not None:
        prompt["cache_salt"] = ask.cache_salt
    return prompt


def _stat_logger(record: Callable[[Any], None]) -> type[Any]:
    """A class, because vLLM makes the instance.

    vLLM adds its Prometheus metrics to the process' default registry unless a logger of that kind
    is given: this one stands in its place and has none.
    """

    class StatLogger(PrometheusStatLogger):  # type: ignore[misc]
        def __init__(self, vllm_config: Any, engine_indexes: list[int] | None = None) -> None:
            self.engine_indexes = engine_indexes or [0]

        def record(
            self,
            scheduler_stats: Any,
            iteration_stats: Any,
            mm_cache_stats: Any = None,
            engine_idx: int = 0,
        ) -> None:
            if scheduler_stats is not None:
                record(scheduler_stats)

        def log_engine_initialized(self) -> None: ...

        def record_admission_rejection(self, reason: str) -> None: ...

        def record_sleep_state(self, sleep: int = 0, level: int = 0) -> None: ...

    return StatLogger


def to_raglan(error: Exception, *, dead: bool, retry_after_s: float) -> RaglanError:
    """The one table from vLLM's errors to ours."""
    match error:
        case QueueOverflowError():
            return Overloaded(
                "As many answers are waited for and written as may be "
                "(RAGLAN_GENERATOR_MAX_NUM_QUEUED_REQS).",
                retry_after_s=retry_after_s,
            )
        case MaxQueuedTokensError():
            return Overloaded(
                "As many tokens of prompts wait to be read as may "
                "(RAGLAN_GENERATOR_MAX_NUM_QUEUED_TOKENS).",
                retry_after_s=retry_after_s,
            )
        case EngineDeadError():
            return Unavailable("The engine's process has died.")
        case _ if dead:
            return Unavailable("The engine's process has died.")
        case RetryableRequestError() | GracefulHTTPError():
            return Unavailable("The engine could not finish the answer; try again.")
        case VLLMClientError() | ValueError():
            return InvalidInput(f"The model refuses the request: {error}")
        case _:
            return Internal("The engine met an error of its own.")
