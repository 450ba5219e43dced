"""`raglan verify` against real meshes: one that is well, and one in which much is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import mesh_process
import ports
import pytest
from faults.process import Process, python_module
from postgres_server import PostgresServer

FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
AHEAD_S = 90
VERIFY_GPU = Path(__file__).parents[2] / "deploy" / "verify_gpu.sh"
RERANKER = """
import runpy
import raglan.v1.revision as wire
wire.REVISION -= 5
runpy.run_module("raglan_reranker", run_name="__main__", alter_sys=True)
"""
"""A reranker of an older wire."""


def command(mesh: mesh_process.Mesh, *options: str) -> list[str]:
    return [sys.executable, "-m", "raglan_cli", "verify", mesh.url, "--json", *options]


def verify(mesh: mesh_process.Mesh, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit status and checks by name."""
    run = subprocess.run(
        command(mesh, *options), capture_output=True, text=True, timeout=180, check=False
    )
    document = json.loads(run.stdout)
    assert document["ok"] is (run.returncode == 0), run.stderr
    return run.returncode, {check["name"]: check for check in document["checks"]}


def failed(checks: dict[str, dict[str, Any]]) -> set[str]:
    return {name for name, check in checks.items() if check["result"] == "failed"}


def collections(mesh: mesh_process.Mesh) -> list[str]:
    with mesh.client() as client:
        found = client.get("/v1/collections").json()["collections"]
    return [each["name"] for each in found if each["name"].startswith("raglan-verify-")]


def all_serve(mesh: mesh_process.Mesh) -> bool:
    with mesh.client() as client:
        status = client.get("/v1/status").json()["services"]
    behind = [each["reachable"] for row in status for each in row["dependencies"]]
    return all(row["state"] == "serving" for row in status) and all(behind)


def test_a_mesh_that_is_well_passes_and_keeps_nothing(
    mesh: mesh_process.Mesh, client: httpx.Client
) -> None:
    abandoned = "raglan-verify-1000000000-abcdef"
    client.post("/v1/collections", json={"name": abandoned})
    status, checks = verify(mesh)
    assert (status, failed(checks)) == (0, set()), checks
    passed = {name for name, check in checks.items() if check["result"] == "ok"}
    services = {"gateway", "embedder", "retriever", "reranker", "generator", "ingester", "tracer"}
    assert passed == services | {"clocks", "wire", "document", "trace"}
    assert checks["document"]["ms"] > 0
    assert all(check["reason"] for check in checks.values())
    assert collections(mesh) == []


def test_a_gpu_that_is_required_and_missing_fails_with_the_way_out(
    mesh: mesh_process.Mesh,
) -> None:
    status, checks = verify(mesh, "--gpu", "embedder")
    assert (status, failed(checks)) == (1, {"gpu embedder"})
    assert "a GPU is required" in checks["gpu embedder"]["reason"]
    assert "RAGLAN_EMBEDDER_DEVICE" in checks["gpu embedder"]["remedy"]


def test_a_reader_sees_one_line_a_check(mesh: mesh_process.Mesh) -> None:
    words = [word for word in command(mesh) if word != "--json"]
    run = subprocess.run(words, capture_output=True, text=True, timeout=180, check=False)
    assert run.returncode == 0, run.stdout
    assert [line.split()[0] for line in run.stdout.splitlines()][:3] == [
        "gateway",
        "embedder",
        "retriever",
    ]
    assert run.stderr.strip() == "All is well."


@pytest.mark.parametrize(
    ("listing", "status", "said"),
    [("exit 1", 1, "found no GPU"), ("echo 'index, name'", 1, "index, name")],
)
def test_a_pipeline_learns_that_no_gpu_is_used(
    mesh: mesh_process.Mesh, tmp_path: Path, listing: str, status: int, said: str
) -> None:
    """nvidia-smi is a script here; what answers after it is the mesh."""
    programs = {"nvidia-smi": listing, "raglan": f'exec {sys.executable} -m raglan_cli "$@"'}
    for name, line in programs.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
    run = subprocess.run(
        [str(VERIFY_GPU), mesh.url, "reranker"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert run.returncode == status
    assert said in run.stderr
    if listing != "exit 1":
        checks = {check["name"]: check for check in json.loads(run.stdout)["checks"]}
        assert failed(checks) == {"gpu reranker"}


def test_a_mesh_that_asks_for_a_key_is_verified_with_it(tmp_path: Path) -> None:
    """As the pod of `helm test` does."""
    key = tmp_path / "admin_key"
    key.write_text("k" * 48)
    guarded = {"RAGLAN_GATEWAY_ADMIN_KEY_FILE": str(key)}
    with mesh_process.running(tmp_path / "mesh", **guarded) as mesh:
        status, checks = verify(mesh)
        assert (status, failed(checks)) == (1, {"gateway"})
        assert "key" in checks["gateway"]["reason"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAGLAN_API_KEY_FILE", str(key))
            status, checks = verify(mesh)
        assert (status, failed(checks)) == (0, set()), checks
        assert checks["document"]["result"] == "ok"


@dataclass
class Troubled:
    """A mesh whose embedder, reranker, Redis and PostgreSQL are the test's own processes."""

    mesh: mesh_process.Mesh
    embedder: Process
    reranker: str
    """Its address."""
    redis: Process
    postgres: PostgresServer


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Troubled]:
    """Its reranker speaks an older wire, by a clock that is ahead."""
    folder = tmp_path_factory.mktemp("troubled")

    def process(name: str, command: list[str], port: int, **variables: str) -> Process:
        started = Process(name, command, variables, folder / f"{name}.log", port)
        started.start()
        return started

    redis_port, embedder_port, reranker_port = (ports.free_port() for _ in range(3))
    redis = process(
        "redis",
        ["redis-server", "--port", str(redis_port), "--save", "", "--bind", "127.0.0.1"],
        redis_port,
    )
    embedder = process(
        "embedder",
        python_module("raglan_embedder"),
        embedder_port,
        RAGLAN_EMBEDDER_PORT=str(embedder_port),
        RAGLAN_EMBEDDER_ENGINE="null",
    )
    reranker = process(
        "reranker",
        [sys.executable, "-c", RERANKER],
        reranker_port,
        RAGLAN_RERANKER_PORT=str(reranker_port),
        RAGLAN_RERANKER_ENGINE="null",
        LD_PRELOAD=FAKETIME,
        FAKETIME=f"+{AHEAD_S}s",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )
    postgres = PostgresServer()
    try:
        with mesh_process.running(
            folder / "data",
            RAGLAN_GATEWAY_EMBEDDER_ADDRESS=embedder.address,
            RAGLAN_GATEWAY_RERANKER_ADDRESS=reranker.address,
            RAGLAN_GATEWAY_REDIS_URL=f"redis://{redis.address}",
            RAGLAN_INGESTER_DATABASE_URL=postgres.url,
        ) as mesh:
            yield Troubled(mesh, embedder, reranker.address, redis, postgres)
    finally:
        for each in (redis, embedder, reranker):
            each.kill()
        postgres.remove()


def test_what_lies_outside_is_reported_and_a_clock_and_a_wire_that_differ_fail(
    troubled: Troubled,
) -> None:
    status, checks = verify(troubled.mesh)
    assert (status, failed(checks)) == (1, {"clocks", "wire"}), checks
    reranker = f"reranker at {troubled.reranker}"
    assert f"{reranker} by +" in checks["clocks"]["reason"]
    assert f"{reranker} (version" in checks["wire"]["reason"]
    assert (checks["redis"]["result"], checks["postgresql"]["result"]) == ("ok", "ok")


def test_an_interrupted_run_deletes_its_collection(troubled: Troubled) -> None:
    """The generator hangs, so the question is not answered yet when SIGTERM comes."""
    generator = troubled.mesh.pid("generator")
    os.kill(generator, signal.SIGSTOP)
    try:
        with subprocess.Popen(
            command(troubled.mesh), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as run:
            mesh_process.until(
                lambda: collections(troubled.mesh), within_s=60, what="the collection is made"
            )
            run.send_signal(signal.SIGTERM)
            output, _ = run.communicate(timeout=60)
    finally:
        os.kill(generator, signal.SIGCONT)
    assert run.returncode == 130
    assert "verify" in {each["name"] for each in json.loads(output)["checks"]}
    assert collections(troubled.mesh) == []


def test_services_that_are_away_fail_by_name(troubled: Troubled) -> None:
    troubled.embedder.kill()
    troubled.redis.kill()
    troubled.postgres.stop()
    try:

        def noticed() -> dict[str, dict[str, Any]] | None:
            _, found = verify(troubled.mesh, "--limit", "5")
            return found if failed(found) >= {"embedder", "redis", "postgresql"} else None

        checks = mesh_process.until(noticed, within_s=120, what="all three are seen to be away")
    finally:
        troubled.embedder.start()
        troubled.redis.start()
        troubled.postgres.start()
        mesh_process.until(lambda: all_serve(troubled.mesh), within_s=60, what="all is back")
    assert f"{troubled.embedder.address} is unreachable" in checks["embedder"]["reason"]
    assert "Redis" in checks["redis"]["reason"]
    assert "RAGLAN_INGESTER_DATABASE_URL" in checks["postgresql"]["remedy"]
    assert checks["document"]["result"] == "failed"
    assert checks["gpu embedder"]["result"] == "skipped"
