"""The generator on a GPU against `vllm serve`, with a model that costs what a trained one does.

A Llama of 8 billion dummy weights, prompts of 3,000 tokens whose passages are drawn as a campus
asks: few often, many rarely. Our service orders passages by popularity; the peer gets the same
messages with passages by rank, and once more with the passages behind the question, as most
pipelines have them. All of it without speculation and with `ngram`, which random weights make too
easy: they repeat themselves.

    make bench-gpu-generator

On a GPU the figures go to bench/results/gpu_generator.json. OPTIONS="--device cpu --tiny" runs the
script itself in minutes and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import tempfile
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import generator_servers as servers
from callers import OK
from generator_servers import Asked, Engine, Server
from generator_shapes import LLAMA_8B, TINY, Shape
from load import Answers, Closed, Generator, generator, percentile
from report import Row, publish
from tokenizers import Tokenizer

PASSAGES: Final = 9
PROMPT_TOKENS: Final = 3_000
REST_TOKENS: Final = 300
"""Of a prompt, for instructions, question and tags."""
POOL: Final = 2_000
SKEW: Final = 1.0
"""Passage number n is drawn in proportion to n ** -SKEW."""
PERCENTS: Final = (50, 95, 99)
NGRAM: Final = {"method": "ngram", "num_speculative_tokens": 5, "prompt_lookup_max": 4}

OURS: Final = "ours"
SAME: Final = "vllm serve, passages by rank before the question"
BEHIND: Final = "vllm serve, passages by rank behind the question"


@dataclass(frozen=True)
class Size:
    """Amount of work: enough for steady figures, or just to see that it runs."""

    shape: Shape
    streams: tuple[int, ...]
    waves: int
    """Answers that each stream reads in a round; one stream reads four times as many."""
    rounds: int
    tokens: int


FULL: Final = Size(LLAMA_8B, (1, 8, 32, 64, 128), waves=3, rounds=3, tokens=256)
SMALL: Final = Size(TINY, (1, 4), waves=1, rounds=1, tokens=16)


@dataclass
class Seen:
    """Measurements of one server at one number of streams."""

    tokens_s: list[float] = field(default_factory=list)
    """One entry a round."""
    first_ms: list[float] = field(default_factory=list)
    """One entry an answer, over all rounds."""
    per_token_ms: list[float] = field(default_factory=list)
    """The mean between the tokens of an answer; one entry an answer."""

    def add(self, answers: Answers) -> None:
        """Take in a round.

        Raises:
            RuntimeError: a call failed, so that the rest means nothing.
        """
        if bad := {status for status in answers.status if status != OK}:
            raise RuntimeError(f"Calls ended with {bad}.")
        self.tokens_s.append(sum(answers.written) / answers.seconds)
        self.first_ms += answers.began_ms()
        self.per_token_ms += per_token_ms(answers)


def per_token_ms(answers: Answers) -> list[float]:
    """Milliseconds between the tokens of each answer, on average, after its first."""
    rows = zip(answers.began, answers.done, answers.written, strict=True)
    return [1e3 * (done - began) / (written - 1) for began, done, written in rows if written > 1]


class Campus:
    """Questions whose passages are drawn by popularity."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self._random = random.Random(seed)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        length = (PROMPT_TOKENS - REST_TOKENS) // PASSAGES
        ids = [self._random.randrange(300, 2_000) for _ in range(POOL * length)]
        self._pool = [tokenizer.decode(ids[at * length : (at + 1) * length]) for at in range(POOL)]
        self._weights = [(number + 1) ** -SKEW for number in range(POOL)]

    def some(self, count: int, tokens: int) -> list[Asked]:
        """`count` questions, to be answered in `tokens`."""
        return [
            Asked(f"What is known of number {self._random.random()}?", self._drawn(), tokens)
            for _ in range(count)
        ]

    def _drawn(self) -> tuple[str, ...]:
        drawn: dict[str, None] = {}
        while len(drawn) < PASSAGES:
            drawn[self._random.choices(self._pool, self._weights)[0]] = None
        return tuple(drawn)


def behind(asked: Asked) -> bytes:
    """The peer's request with the question before the passages."""
    body = json.loads(asked.for_peer)
    system, said = body["messages"]
    passages, _, question = said["content"].rpartition("\n\n")
    body["messages"] = [system, {"role": "user", "content": f"{question}\n\n{passages}"}]
    return json.dumps(body).encode()


def cached(server: Server) -> float:
    """The share of all prompts' tokens that came from the prefix cache, by vLLM's own counters."""
    if server.target.transport == "grpc-answers":
        load = server.load()
        return load["prefix_hits_total"] / max(1.0, load["prefix_tokens_total"])
    address = f"http://127.0.0.1:{server.target.port}/metrics"
    with urllib.request.urlopen(address, timeout=10) as reply:
        text = reply.read().decode()
    hits, queries = (
        sum(
            map(
                float, re.findall(rf"^vllm:prefix_cache_{name}_total\S* (\S+)$", text, re.MULTILINE)
            )
        )
        for name in ("hits", "queries")
    )
    return hits / max(1.0, queries)


def measure(load: Generator, engine: Engine, campus: Campus, size: Size, what: str) -> list[Row]:
    """One configuration of the engine: all layouts, all numbers of streams, interleaved.

    Each layout has a server of its own, so that no cache serves what another asked.
    """
    seen: dict[str, dict[int, Seen]] = defaultdict(lambda: defaultdict(Seen))
    with ExitStack() as stack:
        running = {
            OURS: stack.enter_context(servers.ours(engine, passage_order="popularity")),
            SAME: stack.enter_context(servers.vllm_serve(engine)),
            BEHIND: stack.enter_context(servers.vllm_serve(engine)),
        }
        form: dict[str, Callable[[Asked], bytes]] = {
            OURS: lambda asked: asked.for_ours,
            SAME: lambda asked: asked.for_peer,
            BEHIND: behind,
        }
        for number in range(-1, size.rounds):
            for count in size.streams:
                waves = size.waves * (4 if count == 1 else 1)
                asked = campus.some(count * waves, size.tokens)
                for name, server in running.items():
                    requests = [form[name](each) for each in asked]
                    answers = load.run(Closed(server.target, requests, count), limit_s=1_800)[0]
                    if number >= 0:
                        seen[name][count].add(answers)
                        prompt = statistics.median(answers.read)
        shares = {name: cached(server) for name, server in running.items()}
    rows = [
        Row(f"{what}: of prompt tokens cached", "", shares[OURS], None, shares[peer], peer)
        for peer in (SAME, BEHIND)
    ]
    for count in size.streams:
        for peer in (SAME, BEHIND):
            rows += rows_of(f"{what}, {count} streams", seen[OURS][count], seen[peer][count], peer)
    print(f"{what}: prompts of {prompt:.0f} tokens (median)")
    return rows


def rows_of(what: str, ours: Seen, peer: Seen, name: str) -> list[Row]:
    """Speed, and percentiles over all answers."""
    speed = [statistics.median(each.tokens_s) for each in (ours, peer)]
    rows = [Row(f"{what}: tokens", "1/s", speed[0], None, speed[1], name)]
    for title, mine, theirs in (
        ("first token", ours.first_ms, peer.first_ms),
        ("per token", ours.per_token_ms, peer.per_token_ms),
    ):
        rows += [
            Row(
                f"{what}: {title} p{percent}",
                "ms",
                percentile(mine, percent),
                None,
                percentile(theirs, percent),
                name,
                note=f"{len(mine)} answers",
            )
            for percent in PERCENTS
        ]
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="a small model and few answers")
    parser.add_argument(
        "--memory", type=float, default=0.28, help="share of the device for each of three servers"
    )
    arguments = parser.parse_args()
    # It takes seconds to import, and only here is it needed.
    import generator_models

    servers.installed()
    size = SMALL if arguments.tiny else FULL
    cpu = arguments.device == "cpu"
    name = "tiny model on the CPU" if cpu else "8B shape"
    rows: list[Row] = []
    with generator() as load, tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        generator_models.write_shape(folder, size.shape)
        told: dict[str, Any] = {
            "max_model_len": 8_192,
            "max_num_seqs": 128,
            "enforce_eager": cpu,
            "gpu_memory_utilization": 0.1 if cpu else arguments.memory,
            "load_format": "dummy",
        }
        for what, speculation in ((name, {}), (f"{name}, ngram", NGRAM)):
            engine = Engine(folder, **told, speculation=speculation)
            rows += measure(load, engine, Campus(folder), size, what)
    show(rows, written=not cpu)


def show(rows: Sequence[Row], *, written: bool) -> None:
    """On the screen, and in the results."""
    if written:
        publish("gpu_generator", rows)
        return
    for row in rows:
        print(f"{row.what}: {row.ours:.4g} {row.unit}; {row.peer_name}: {row.peer:.4g}")


if __name__ == "__main__":
    main()
