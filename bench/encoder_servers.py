"""The servers under measurement: our embedder as a process of its own, and Infinity."""

from __future__ import annotations

import base64
import json
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import grpc
import numpy as np
from callers import Target
from numpy.typing import NDArray
from processes import answers, free_port, process, serving
from raglan import tensors
from raglan.encoders import model as models
from raglan.encoders.export import onnx_file
from raglan.v1 import common_pb2, embedder_pb2
from raglan_embedder.settings import EmbedderSettings

ROOT = Path(__file__).resolve().parent.parent
INFINITY = ROOT / ".venv-infinity" / "bin" / "infinity_emb"
EMBED = "/raglan.v1.EmbedderService/Embed"
SERVICE = "raglan.v1.EmbedderService"

_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True)
class Server:
    """A running server and how its requests look."""

    target: Target
    pid: int

    def queries(self, texts: Sequence[str]) -> list[bytes]:
        """One request a text."""
        return [self.request([text]) for text in texts]

    def request(self, texts: Sequence[str], *, bulk: bool = False) -> bytes:
        """One request with all of `texts`."""
        if self.target.transport == "http":
            # base64 is Infinity's cheapest form of a vector: 384 decimal numbers cost it more.
            body = {"model": "model", "input": list(texts), "encoding_format": "base64"}
            return json.dumps(body).encode()
        lane = common_pb2.LANE_BULK if bulk else common_pb2.LANE_INTERACTIVE
        kind = embedder_pb2.INPUT_KIND_PASSAGE if bulk else embedder_pb2.INPUT_KIND_QUERY
        return embedder_pb2.EmbedRequest(texts=texts, kind=kind, lane=lane).SerializeToString()

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 (texts, dimension), asked for 16 at a time."""
        parts = [self._ask(texts[at : at + 16]) for at in range(0, len(texts), 16)]
        return np.concatenate(parts)

    def _ask(self, texts: Sequence[str]) -> NDArray[np.float32]:
        port, path = self.target.port, self.target.path
        if self.target.transport == "grpc":
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                reply = channel.unary_unary(path)(self.request(texts), timeout=60)
            return tensors.unpack(embedder_pb2.EmbedResponse.FromString(reply).vectors)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}",
            data=self.request(texts),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            rows = [row["embedding"] for row in json.load(reply)["data"]]
        return np.stack([np.frombuffer(base64.b64decode(row), np.float32) for row in rows])


@contextmanager
def embedder(**settings: str) -> Iterator[Server]:
    """Our service with its defaults and `settings`, its vector cache off, SERVING."""
    port = free_port()
    # A cache that answers what was asked before would measure itself.
    chosen = {"port": str(port), "log_level": "warning", "cache_mb": "0"} | settings
    environment = {f"RAGLAN_EMBEDDER_{field.upper()}": value for field, value in chosen.items()}
    command = [sys.executable, "-m", "raglan_embedder"]

    with process("embedder", command, environment, lambda: serving(port, SERVICE)) as pid:
        yield Server(Target("grpc", port, EMBED), pid)


@contextmanager
def infinity(engine: Literal["torch", "optimum"] = "torch") -> Iterator[Server]:
    """Infinity with the settings of `engine` that are fastest here.

    torch runs in bfloat16, as ours does; with 32 clients it is the fastest. optimum is ONNX Runtime
    in float32, faster for one client; the model ships no file for it, so it gets the one that our
    export made. Off: the cache on disk, BetterTransformer and torch.compile (no faster on a CPU),
    the second tokenisation that only counts tokens, and usage reports.

    Raises:
        SystemExit: it is not installed; the sentence says how.
    """
    if not INFINITY.is_file():
        raise SystemExit("Infinity is not installed: run `make venv-infinity` first.")
    port = free_port()
    off = ("vector-disk-cache", "bettertransformer", "compile", "lengths-via-tokenize")
    dtype = {"torch": "bfloat16", "optimum": "auto"}[engine]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(str(INFINITY), "v2", "--model-id", str(_with_onnx(Path(folder)))),
            *("--engine", engine, "--device", "cpu", "--dtype", dtype, "--pooling-method", "mean"),
            *("--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"),
            *(f"--no-{option}" for option in off),
        ]
        with process(f"Infinity ({engine})", command, _QUIET, lambda: answers(port)) as pid:
            yield Server(Target("http", port, "/embeddings"), pid)


def _with_onnx(folder: Path) -> Path:
    """A copy of the model with its ONNX file beside it."""
    model = models.read(models.DEFAULT_MODEL)
    copy = folder / "model"
    shutil.copytree(model.path, copy)
    (copy / "onnx").mkdir(exist_ok=True)
    shutil.copy(onnx_file(model, EmbedderSettings().cache_dir), copy / "onnx" / "model.onnx")
    return copy
