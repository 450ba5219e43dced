"""Real vLLM on the CPU, with a tiny model made on the spot: one engine for all that do not harm it.

An engine takes half a minute to start, so what can share one does.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import span_collector
import tiny_model
from answers import MAX_NUM_QUEUED_REQS, MAX_NUM_QUEUED_TOKENS, MAX_NUM_SEQS, OPTIONS
from raglan_generator.engines.vllm import ENVIRONMENT, VllmModel

os.environ |= {
    **ENVIRONMENT,
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # Else every engine of the machine binds itself to the same core, and all but one starve.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}
with warnings.catch_warnings():
    # Those of torch and vLLM while they are imported.
    warnings.simplefilter("ignore")
    importlib.import_module("raglan_generator.engines.vllm_engine")


# The command line is not installed beside vLLM; what counts memory needs nothing but Python.
sys.path.append(str(Path(__file__).parents[2] / "cli" / "src"))

START_S = 300
FOREIGN = "(torch|vllm|transformers|triton|xgrammar|multiprocessing|importlib)"


def pytest_configure(config: pytest.Config) -> None:
    """Warnings are errors where they are ours: what vLLM brings along has some of its own."""
    for kind in ("DeprecationWarning", "FutureWarning", "UserWarning"):
        config.addinivalue_line("filterwarnings", f"ignore::{kind}:{FOREIGN}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """An engine that starts beside other work may take minutes."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(START_S))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model.make(folder)
    return folder


@pytest.fixture(scope="session")
def adapter_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of the tiny model."""
    folder = tmp_path_factory.mktemp("adapters") / "legal"
    tiny_model.make_adapter(folder)
    return folder


@pytest.fixture(scope="session")
def spans() -> Iterator[span_collector.Collector]:
    """Takes in what vLLM traces."""
    with span_collector.running() as collector:
        yield collector


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def model(
    model_folder: Path, adapter_folder: Path, spans: span_collector.Collector
) -> AsyncIterator[VllmModel]:
    """A small engine that is soon full."""
    options = OPTIONS.model_copy(
        update={
            "max_num_seqs": MAX_NUM_SEQS,
            "max_num_queued_reqs": MAX_NUM_QUEUED_REQS,
            "max_num_queued_tokens": MAX_NUM_QUEUED_TOKENS,
            "otlp_traces_endpoint": spans.endpoint,
        }
    )
    started = VllmModel(
        str(model_folder), options, adapters={"legal": str(adapter_folder)}, shutdown_timeout_s=1
    )
    try:
        await started.start()
        yield started
    finally:
        await started.close()
