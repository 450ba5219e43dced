"""`raglan up --replicas gateway=2,embedder=2`: two gateways on one port."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import mesh_process
import psutil
import pytest

NULL = {
    "RAGLAN_EMBEDDER_ENGINE": "null",
    "RAGLAN_RERANKER_ENGINE": "null",
    "RAGLAN_GENERATOR_ENGINE": "null",
}
CALLERS = 4


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mesh_process.Mesh]:
    """A mesh with two gateways and two embedders; none of its processes outlives it."""
    folder = tmp_path_factory.mktemp("pair") / "data"
    with mesh_process.running(folder, "--replicas", "gateway=2,embedder=2", **NULL) as mesh:
        # The mesh answers as soon as one of them does.
        mesh_process.until(
            lambda: len(gateways(mesh)) == 2, within_s=60, what="both gateways are ready"
        )
        pids = [service["pid"] for service in mesh.services()]
        yield mesh
        pids += [service["pid"] for service in mesh.services()]
    assert [pid for pid in pids if pid and psutil.pid_exists(pid)] == []


def gateways(mesh: mesh_process.Mesh) -> set[int]:
    """The pids of the gateways that are ready."""
    found = [each for each in mesh.services() if each["service"] == "gateway"]
    return {each["pid"] for each in found if each["state"] == "ready"}


def answered_by(url: str) -> int:
    """The pid of the gateway that accepts a new connection."""
    services = httpx.get(f"{url}/v1/status", timeout=30).json()["services"]
    return int(next(each["pid"] for each in services if each["service"] == "gateway"))


class Callers:
    """Threads that send searches, each on a new connection."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._over = threading.Event()
        self.failed: list[str] = []
        self.answered = 0
        self._pool = ThreadPoolExecutor(CALLERS)

    def _call(self) -> None:
        while not self._over.is_set():
            try:
                reply = httpx.post(f"{self._url}/v1/search", json={"query": "pump"}, timeout=30)
                reply.raise_for_status()
                self.answered += 1
            except httpx.HTTPError as error:
                self.failed.append(repr(error))

    @contextmanager
    def calling(self) -> Iterator[None]:
        running = [self._pool.submit(self._call) for _ in range(CALLERS)]
        try:
            yield
        finally:
            self._over.set()
            for each in running:
                each.result()
            self._pool.shutdown()


def raglan(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "raglan_cli", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_both_gateways_answer_on_one_port(pair: mesh_process.Mesh) -> None:
    both = gateways(pair)
    assert len(both) == 2
    for stopped in both:
        os.kill(stopped, signal.SIGSTOP)
        try:
            (other,) = both - {stopped}
            assert answered_by(pair.url) == other
        finally:
            os.kill(stopped, signal.SIGCONT)


def test_status_shows_each_process_once(pair: mesh_process.Mesh) -> None:
    run = raglan("status", "--data", str(pair.data), "--json")
    assert run.returncode == 0, run.stdout
    rows = json.loads(run.stdout)["services"]
    of_gateway = {row["pid"] for row in rows if row["service"] == "gateway"}
    assert of_gateway == gateways(pair)
    assert sorted(row["pid"] for row in rows) == sorted(each["pid"] for each in pair.services())


def test_metrics_of_each_gateway_are_found_apart(pair: mesh_process.Mesh) -> None:
    def addresses() -> list[str]:
        targets: list[dict[str, Any]] = httpx.get(f"{pair.url}/metrics/targets", timeout=30).json()
        found = (each for each in targets if each["labels"]["component"] == "gateway")
        return [address for target in found for address in target["targets"]]

    # The file of the gateways' own addresses follows a restart by moments.
    mesh_process.until(lambda: len(addresses()) == 2, within_s=30, what="both are listed")
    found = addresses()
    assert {answered_by(f"http://{address}") for address in found} == gateways(pair)


def test_a_killed_gateway_costs_only_what_it_was_answering(pair: mesh_process.Mesh) -> None:
    victim = min(gateways(pair))
    callers = Callers(pair.url)
    with callers.calling():
        mesh_process.until(lambda: callers.answered > 20, within_s=60, what="searches are answered")
        os.kill(victim, signal.SIGKILL)
        mesh_process.until(
            lambda: len(gateways(pair) - {victim}) == 2, within_s=90, what="it is back"
        )
        before = callers.answered
        mesh_process.until(
            lambda: callers.answered > before + 20, within_s=60, what="searches are answered"
        )
    assert len(callers.failed) <= CALLERS, callers.failed


def test_a_rolling_restart_replaces_both_and_fails_nobody(pair: mesh_process.Mesh) -> None:
    before = gateways(pair)
    callers = Callers(pair.url)
    with callers.calling():
        run = raglan("restart", "gateway", "embedder", "--data", str(pair.data))
    assert run.returncode == 0, run.stderr
    after = gateways(pair)
    assert len(after) == 2
    assert not before & after
    assert callers.failed == []
