"""Share of a prompt that vLLM serves from its prefix cache, by the order of the prompt's parts.

Replays the retrieval requests of the RAGPulse trace (ids and token lengths, no text) through real
vLLM with a tiny random model and reads vLLM's own counters; beside it a simulation of the same
cache, for the whole trace and for other cache sizes. Every layout sends the same parts:

- static: the first two pieces of the system prompt (the second changes once in some hours),
- volatile: its third piece, which changes with each request, like a date or an id would,
- passages, web pages, history, question.

`make venv-vllm`, then `PYTHONPATH=tests/vllm:bench .venv-vllm/bin/python bench/prompt_layout.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from raglan_generator.passage_order import PassageOrder
from report import Row, publish

REPOSITORY: Final = Path(__file__).parents[1]
CPU_BLOCK: Final = 32
"""Tokens that vLLM caches as one: on a CPU multiples of this, on GPUs 16."""
GPU_BLOCK: Final = 16
CACHE_TOKENS: Final = 524_288
"""Room of an 80 GB GPU beside an 8B model in bfloat16."""
VOCABULARY: Final = 2_000
MAX_MODEL_LEN: Final = 8_192

Piece = tuple[str, int]
"""Kind and id of a part of a prompt."""


@dataclass(frozen=True)
class Ask:
    """One retrieval request of the trace."""

    static: list[Piece]
    volatile: list[Piece]
    passages: list[Piece]
    web: list[Piece]
    history: list[Piece]
    question: list[Piece]


Layout = Callable[[Ask], list[Piece]]


class Trace:
    """The requests that retrieve, and the tokens of every piece."""

    def __init__(self, folder: Path) -> None:
        names = {"1_sys_prompt", "2_passages", "3_history", "4_user_input", "5_web_search"}
        self._lengths: dict[Piece, int] = {}
        for name in names:
            for line in _lines(folder / f"{name}.jsonl"):
                identity, length = line.values()
                self._lengths[name[0], identity] = length
        self._tokens: dict[Piece, list[int]] = {}
        self.asks = [_ask(line["hash_ids"]) for line in _lines(folder / "0_trace.jsonl")]
        self.asks = [ask for ask in self.asks if ask.passages]

    def tokens(self, pieces: Sequence[Piece]) -> list[int]:
        """Made-up token ids, the same for the same pieces."""
        return [token for piece in pieces for token in self._of(piece)]

    def _of(self, piece: Piece) -> list[int]:
        if piece not in self._tokens:
            seed = int.from_bytes(hashlib.blake2b(repr(piece).encode(), digest_size=8).digest())
            made = np.random.default_rng(seed).integers(100, VOCABULARY, self._lengths[piece])
            self._tokens[piece] = made.tolist()
        return self._tokens[piece]


def layouts() -> dict[str, Layout]:
    """Each with a memory of its own; the last is ours."""
    order = PassageOrder()

    def popular(ask: Ask) -> list[Piece]:
        keys = [repr(piece).encode() for piece in ask.passages]
        passages = [ask.passages[i] for i in order.arrange("", keys)]
        return ask.static + passages + ask.web + ask.volatile + ask.history + ask.question

    return {
        "as served there: volatile before the passages": lambda ask: (
            ask.static + ask.volatile + ask.passages + ask.web + ask.history + ask.question
        ),
        "passages by rank after the question": lambda ask: (
            ask.static + ask.history + ask.question + ask.volatile + ask.passages + ask.web
        ),
        "passages by rank before history and question": lambda ask: (
            ask.static + ask.passages + ask.web + ask.volatile + ask.history + ask.question
        ),
        "passages by popularity before history and question": popular,
    }


OURS: Final = "passages by popularity before history and question"
PEER: Final = "passages by rank after the question"


def simulated(prompts: Iterator[list[int]], block: int, capacity: int | None) -> float:
    """The share of tokens that a cache serves; the least recently used blocks leave.

    Args:
        prompts: in the order of their arrival, each ended before the next.
        block: tokens that are cached as one.
        capacity: tokens that the cache holds; None has no end.
    """
    cache: OrderedDict[int, None] = OrderedDict()
    total = hits = 0
    for prompt in prompts:
        total += len(prompt)
        chain, keys = 0, []
        for start in range(0, len(prompt) - block + 1, block):
            chain = hash((chain, *prompt[start : start + block]))
            keys.append(chain)
        # The last token is always computed: from it comes the first of the answer.
        for key in islice(keys, (len(prompt) - 1) // block):
            if key not in cache:
                break
            hits += block
        # As vLLM frees them: the end of a prompt before its beginning.
        for key in reversed(keys):
            cache[key] = None
            cache.move_to_end(key)
        while capacity is not None and len(cache) > capacity // block:
            cache.popitem(last=False)
    return hits / total


class Engine:
    """Real vLLM on the CPU with one layer of random weights: counters need no sense."""

    def __init__(self, folder: Path) -> None:
        # Read by vLLM when it is imported.
        os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
        import tiny_model
        from vllm import LLM, SamplingParams

        tiny_model.make(folder, layers=1)
        self._llm: Any = LLM(
            model=str(folder),
            dtype="bfloat16",
            enforce_eager=True,
            block_size=CPU_BLOCK,
            num_gpu_blocks_override=CACHE_TOKENS // CPU_BLOCK,
            max_model_len=MAX_MODEL_LEN,
            hf_overrides={"max_position_embeddings": MAX_MODEL_LEN},
            max_num_batched_tokens=MAX_MODEL_LEN,
            max_num_seqs=8,
            disable_log_stats=False,
        )
        self._one_token: Any = SamplingParams(max_tokens=1, temperature=0)

    def served(self, prompts: Sequence[list[int]]) -> float:
        """The share of prompt tokens found in the cache, which is empty at first."""
        self._llm.reset_prefix_cache()
        queries, hits = self._counters()
        self._llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts], self._one_token, use_tqdm=False
        )
        queries_after, hits_after = self._counters()
        return (hits_after - hits) / (queries_after - queries)

    def close(self) -> None:
        """End vLLM's processes: the interpreter would wait for them at its exit."""
        self._llm.llm_engine.engine_core.shutdown()

    def _counters(self) -> tuple[int, int]:
        values = {
            metric.name: metric.value
            for metric in self._llm.get_metrics()
            if metric.name in ("vllm:prefix_cache_queries", "vllm:prefix_cache_hits")
        }
        return values["vllm:prefix_cache_queries"], values["vllm:prefix_cache_hits"]


def main() -> None:
    """Replay, simulate, publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, help="only so many, from the first on")
    arguments = parser.parse_args()
    trace = Trace(_folder())
    asks = trace.asks[: arguments.requests]
    print(f"{len(asks)} of {len(trace.asks)} requests that retrieve", flush=True)
    rows = [*_measured(trace, asks), *_simulated(trace, asks)]
    publish("prompt_layout", rows)


def _measured(trace: Trace, asks: Sequence[Ask]) -> Iterator[Row]:
    served: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, closing(Engine(Path(folder))) as engine:
        for name, layout in layouts().items():
            prompts = [trace.tokens(layout(ask)) for ask in asks]
            began = time.monotonic()
            served[name] = 100 * engine.served(prompts)
            seconds = time.monotonic() - began
            tokens = sum(map(len, prompts))
            print(
                f"{served[name]:6.2f} %  {name}; {tokens:,} tokens in {seconds:.0f} s", flush=True
            )
    note = f"vLLM's counters, {len(asks)} requests, {CACHE_TOKENS:,} tokens of cache"
    for name, share in served.items():
        yield Row(f"tokens served from cache, {name}", "%", share, note=note)
    yield Row(
        "tokens served from cache, ours over passages by rank after the question",
        "points",
        served[OURS] - served[PEER],
        target=">= 8",
        note=note,
    )


def _simulated(trace: Trace, part: Sequence[Ask]) -> Iterator[Row]:
    caches = [(trace.asks, GPU_BLOCK, tokens) for tokens in (65_536, 262_144, CACHE_TOKENS, None)]
    alike = [(asks, CPU_BLOCK, CACHE_TOKENS) for asks in (part, trace.asks)]
    for asks, block, capacity in [*alike, *caches]:
        size = f"{capacity:,} tokens" if capacity else "no end"
        note = f"simulated, {len(asks)} requests, a cache of {size} in blocks of {block}"
        for name, layout in layouts().items():
            prompts = (trace.tokens(layout(ask)) for ask in asks)
            share = 100 * simulated(prompts, block, capacity)
            print(f"{share:6.2f} %  {name}; {note}", flush=True)
            yield Row(f"tokens served from cache, {name}", "%", share, note=note)


def _ask(ids: dict[str, list[int]]) -> Ask:
    def pieces(kind: str, name: str) -> list[Piece]:
        return [(kind, identity) for identity in dict.fromkeys(ids[name])]

    system = pieces("1", "sys_prompt")
    return Ask(
        static=system[:2],
        volatile=system[2:],
        passages=pieces("2", "passages_ids"),
        web=pieces("5", "web_search"),
        history=pieces("3", "history"),
        question=pieces("4", "user_input"),
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from (json.loads(line) for line in file if line.strip())


def _folder() -> Path:
    root = Path(os.environ.get("EVAL_DATA_DIR") or REPOSITORY.parent / "shared" / "data")
    folder = root / "ragpulse"
    if not (folder / "0_trace.jsonl").is_file():
        sys.exit(f"No trace in {folder}. Set EVAL_DATA_DIR to a folder that holds ragpulse/.")
    return folder


if __name__ == "__main__":
    main()
