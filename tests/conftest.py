"""The guard of the event loop, how workers share the tests, and the mesh that many of them use."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import encoder_pace
import machine
import mesh_process
import pytest
from hypothesis import settings

# An example that takes long shows a busy machine; what must be fast has a test that says so.
settings.register_profile("any machine", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=15)
settings.load_profile("any machine")

REPOSITORY = Path(__file__).parents[1]
FOLDERS = {name: n for n, name in enumerate(("mesh", "contract", "process", "unit", "faults"))}
SHARED_MESH = {"mesh", "observability"}
BLOCKED_S = 0.5
"""A callback that holds the loop longer fails the test, unless `loop_stall_s(n)` marks it."""


@pytest.hookimpl(trylast=True)  # after pytest-randomly, whose order within a folder stays
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the folders that take longest: two workers end at about the same time."""
    items.sort(key=lambda item: FOLDERS.get(_folder(item.nodeid), len(FOLDERS)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each file to one worker, and all that share a mesh to the same one."""
    from xdist.scheduler import LoadFileScheduling

    class ByMesh(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            folder = _folder(nodeid)
            return folder if folder in SHARED_MESH else super()._split_scope(nodeid)

    config.option.loadscopereorder = False
    return ByMesh(config, log)


def _folder(nodeid: str) -> str:
    """The folder below `tests`."""
    return nodeid.removeprefix("tests/").partition("/")[0]


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outside of pytest-timeout: waiting is not the test
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    """Run a test that is marked `alone` while no other worker runs one."""
    folder = item.config.cache.mkdir("raglan-workers")
    with (folder / "turn").open("w") as turn, (folder / "running").open("w") as running:
        # Who waits for the machine holds the turn, so that nobody overtakes.
        fcntl.flock(turn, fcntl.LOCK_EX)
        fcntl.flock(running, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        fcntl.flock(turn, fcntl.LOCK_UN)
        return (yield)


def pytest_collection_finish() -> None:
    """What the tests import stays: collecting it takes 0.5 s, in the middle of one of them."""
    gc.freeze()


@pytest.fixture(autouse=True)
def no_blocked_loop(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[None]:
    """Fail the test when anything holds the event loop for `BLOCKED_S` or longer.

    Time in which the thread was ready but had no core is the machine's, and does not count. On a
    slower machine, time in which this process computes counts for less.
    """
    marked = request.node.get_closest_marker("loop_stall_s")
    limit_s = marked.args[0] if marked else BLOCKED_S
    slow: list[str] = []
    run = asyncio.Handle._run
    others_waited = machine.others_without_core_s()

    def timed(handle: asyncio.Handle) -> None:
        begun, computed = time.monotonic() - machine.without_core_s(), time.process_time()
        run(handle)
        held = time.monotonic() - machine.without_core_s() - begun
        if held >= limit_s:
            computing = min(held, time.process_time() - computed)
            held -= computing * (1 - 1 / machine.slowness())
            # The thread may have waited for another one, as those of a matrix product.
            held -= max(0.0, machine.others_without_core_s() - others_waited)
            if held >= limit_s:
                slow.append(f"{held:.2f} s in {handle!r}")

    monkeypatch.setattr(asyncio.Handle, "_run", timed)
    yield
    assert not slow, "the event loop was blocked: " + "; ".join(slow)


@pytest.fixture(scope="session", autouse=True)
def own_data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The default data folder is the tests' own: the user's may hold anything, of any version."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAGLAN_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="session", autouse=True)
def paced_encoders(request: pytest.FixtureRequest) -> Iterator[None]:
    """Slow or fast encoders where they are asked for."""
    with encoder_pace.applied(request.config.cache.mkdir("raglan-encoded")):
        yield


@pytest.fixture(scope="session")
def eval_data() -> Path:
    """The folder of evaluation sets, in BEIR layout."""
    folder = Path(os.environ.get("EVAL_DATA_DIR") or REPOSITORY.parent / "shared" / "data")
    if not (folder / "scifact" / "corpus.jsonl").is_file():
        pytest.fail(
            f"No evaluation data in {folder}. Set EVAL_DATA_DIR to a folder that holds "
            "squad/, scifact/ and cranfield/ in BEIR layout."
        )
    return folder


@pytest.fixture(scope="session")
def model_cache(request: pytest.FixtureRequest) -> Path:
    """Exported models, kept by pytest from run to run: export and quantisation take half a
    minute."""
    return request.config.cache.mkdir("raglan-models")


@pytest.fixture(scope="session")
def exported(model_cache: Path) -> dict[str, str]:
    """The variables that have a mesh use it. A first start without it is tested in `tests/e2e`."""
    return {f"RAGLAN_{name}_CACHE_DIR": str(model_cache) for name in ("EMBEDDER", "RERANKER")}


@pytest.fixture(scope="session")
def mesh(
    tmp_path_factory: pytest.TempPathFactory, exported: dict[str, str]
) -> Iterator[mesh_process.Mesh]:
    """One mesh for all tests that do not harm it."""
    with mesh_process.running(tmp_path_factory.mktemp("mesh"), **exported) as running:
        yield running
