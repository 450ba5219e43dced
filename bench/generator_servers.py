"""The servers under measurement: our generator, and what `vllm serve` runs, over one model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import grpc
import processes
from callers import Target
from raglan.v1 import common_pb2, generator_pb2, generator_pb2_grpc
from raglan_generator.generation import Passage, Request
from raglan_generator.prompt import blocks, messages

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
SERVICE = "raglan.v1.GeneratorService"
GENERATE = f"/{SERVICE}/Generate"
NAME = "model"
TASKS_FILE = "BENCH_TASKS_FILE"

_SERVE = "from vllm.entrypoints.launchers.api_server.entry import main; main()"
"""The function behind `vllm serve`; the command itself wants a distribution named vllm, which the
CPU's is not."""

_QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}


@dataclass(frozen=True)
class Asked:
    """One question as both servers get it."""

    question: str
    passages: tuple[str, ...]
    max_tokens: int
    first_ms: int = 0
    """Within which the answer shall begin; the peer cannot be told."""

    @cached_property
    def for_ours(self) -> bytes:
        """A `GenerateRequest`."""
        return generator_pb2.GenerateRequest(
            question=self.question,
            passages=[
                common_pb2.Passage(chunk_id=str(number), text=text, start=0, end=len(text))
                for number, text in enumerate(self.passages)
            ],
            max_tokens=self.max_tokens,
            first_token_ms=self.first_ms,
        ).SerializeToString()

    @cached_property
    def for_peer(self) -> bytes:
        """A chat completion of the messages that our prompt has, passages by rank."""
        request = Request(self.question, tuple(map(Passage, self.passages)))
        body = {
            "model": NAME,
            "messages": messages(request, (), blocks(request.passages)),
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return json.dumps(body).encode()


@dataclass(frozen=True)
class Engine:
    """Settings of both engines; the names are vLLM's."""

    model: Path
    dtype: str = "bfloat16"
    max_model_len: int = 4096
    max_num_seqs: int = 64
    enforce_eager: bool = True
    enable_prefix_caching: bool = True
    gpu_memory_utilization: float = 0.2
    load_format: str = "auto"
    speculation: Mapping[str, object] = field(default_factory=dict)
    kv_gib: int = 1
    """On a CPU; a GPU gives what it has left."""

    def variables(self) -> dict[str, str]:
        """As settings of our service."""
        told = {
            "model": str(self.model),
            "dtype": self.dtype,
            "max_model_len": str(self.max_model_len),
            "max_num_seqs": str(self.max_num_seqs),
            "enforce_eager": str(self.enforce_eager),
            "enable_prefix_caching": str(self.enable_prefix_caching),
            "gpu_memory_utilization": str(self.gpu_memory_utilization),
            "load_format": self.load_format,
            "speculation": json.dumps(self.speculation) if self.speculation else "",
        }
        return {f"RAGLAN_GENERATOR_{name.upper()}": value for name, value in told.items()}

    def arguments(self) -> list[str]:
        """As arguments of `vllm serve`."""
        return [
            *("--model", str(self.model), "--dtype", self.dtype),
            *("--max-model-len", str(self.max_model_len)),
            *("--max-num-seqs", str(self.max_num_seqs)),
            *("--gpu-memory-utilization", str(self.gpu_memory_utilization)),
            *("--load-format", self.load_format),
            *(["--enforce-eager"] if self.enforce_eager else []),
            f"--{'' if self.enable_prefix_caching else 'no-'}enable-prefix-caching",
            *(["--speculative-config", json.dumps(self.speculation)] if self.speculation else []),
        ]

    @property
    def environment(self) -> dict[str, str]:
        """Of either process."""
        return _QUIET | {"VLLM_CPU_KVCACHE_SPACE": str(self.kv_gib)}


@dataclass(frozen=True)
class Server:
    """A running server."""

    target: Target
    pid: int
    tasks_file: Path | None = None

    def request(self, asked: Asked) -> bytes:
        """`asked` as this server reads it."""
        return asked.for_ours if self.target.transport == "grpc-answers" else asked.for_peer

    def load(self) -> dict[str, float]:
        """Read the work in hand that our service reports."""
        with grpc.insecure_channel(f"127.0.0.1:{self.target.port}") as channel:
            stub = generator_pb2_grpc.GeneratorServiceStub(channel)
            return dict(stub.GetInfo(common_pb2.GetInfoRequest(), timeout=10).load)


@contextmanager
def ours(engine: Engine, tasks_file: Path | None = None, **settings: str) -> Iterator[Server]:
    """Our service with vLLM in the process; `settings` besides.

    It leaves passages in the order of their rank, as the peer gets them.
    """
    settings = {"engine": "vllm", "passage_order": "rank"} | settings
    yield from _service(engine.variables() | _named(settings), engine.environment, tasks_file)


@contextmanager
def in_front_of(peer: Server, engine: Engine) -> Iterator[Server]:
    """Our service with its `openai` engine before `peer`."""
    settings = {
        "engine": "openai",
        "base_url": f"http://127.0.0.1:{peer.target.port}/v1",
        "model": NAME,
        "tokenizer": str(engine.model),
        "max_model_len": str(engine.max_model_len),
        "passage_order": "rank",
    }
    yield from _service(_named(settings), {}, None)


@contextmanager
def vllm_serve(engine: Engine) -> Iterator[Server]:
    """The server that comes with vLLM: its metrics on, as ours are, and its log of accesses off."""
    port = processes.free_port()
    command = [
        *(str(PYTHON), "-c", _SERVE, *engine.arguments(), "--served-model-name", NAME),
        *("--host", "127.0.0.1", "--port", str(port)),
        "--disable-uvicorn-access-log",
    ]
    ready = lambda: processes.answers(port)  # noqa: E731
    with processes.process("vllm serve", command, engine.environment, ready) as pid:
        yield Server(Target("http-answers", port, "/v1/chat/completions"), pid)


def installed() -> None:
    """Check that vLLM is installed; exit with the command that installs it."""
    if not PYTHON.is_file():
        raise SystemExit("vLLM is not installed: run `make venv-vllm` first.")


def _service(
    variables: Mapping[str, str], environment: Mapping[str, str], tasks_file: Path | None
) -> Iterator[Server]:
    port = processes.free_port()
    environment = {
        **environment,
        **variables,
        **_named({"port": str(port), "log_level": "warning"}),
        **({TASKS_FILE: str(tasks_file)} if tasks_file else {}),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "bench"), os.environ.get("PYTHONPATH", "")]),
    }
    command = [str(PYTHON), str(ROOT / "bench" / "generator_service.py")]
    ready = lambda: processes.serving(port, SERVICE)  # noqa: E731
    with processes.process("generator", command, environment, ready) as pid:
        yield Server(Target("grpc-answers", port, GENERATE), pid, tasks_file)


def _named(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"RAGLAN_GENERATOR_{name.upper()}": value for name, value in settings.items()}
