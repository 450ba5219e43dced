"""A journey over the Compose file, in the order in which the tests stand here.

Real containers, real models: documents in, an answer out, through a crash, a second replica, a
rolling restart, and the end of all containers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import mesh_process
import pytest
from containers.engine import Podman
from containers.project import Project
from containers.services import PORTS

pytestmark = pytest.mark.timeout(1500)

COLLECTION = "journey"
DOCUMENTS = [
    {
        "id": "guide",
        "title": "Guide",
        "text": "# Pinning services\n\nEvery model service runs on one device. The reranker runs "
        "on the second GPU when RAGLAN_RERANKER_DEVICE is set to cuda:1.",
    },
    {"id": "tides", "title": "Tides", "text": "Tides are caused by the gravity of the Moon."},
]
QUESTION = "How do I run the reranker on the second GPU?"


@pytest.fixture(scope="module")
def project(
    images: Podman, stores: Podman, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    running = Project(images, tmp_path_factory.mktemp("compose"))
    try:
        running.compose("up", "--detach")
        running.wait_until_full()
        yield running
    finally:
        running.down("--volumes")
        assert images("ps", "--all", "--quiet").split() == []


def ask(project: Project, question: str = QUESTION) -> dict[str, object]:
    with project.client() as client:
        reply = client.post("/v1/query", json={"query": question, "collections": [COLLECTION]})
    assert reply.status_code == 200, reply.text
    found: dict[str, object] = reply.json()
    return found


def assert_answered(reply: dict[str, object]) -> None:
    assert "cuda:1" in str(reply["answer"]), reply
    assert reply["citations"], reply


def test_documents_are_ingested_and_answer_a_question(project: Project) -> None:
    with project.client() as client:
        client.post("/v1/collections", json={"name": COLLECTION}).raise_for_status()
        job = mesh_process.ingest(client, COLLECTION, DOCUMENTS)
    assert job["status"] == "succeeded", job
    reply = ask(project)
    assert_answered(reply)
    assert reply["degraded"] == []


def test_every_process_runs_alone_and_without_rights(project: Project) -> None:
    for service in PORTS:
        (name,) = project.containers(service)
        state = project.podman.inspect("container", name)
        assert state["Config"]["User"] == "10001:10001"
        assert state["HostConfig"]["ReadonlyRootfs"]
        assert not state["EffectiveCaps"]
        published = [
            port for each in state["NetworkSettings"]["Ports"].values() for port in each or []
        ]
        assert {each["HostIp"] for each in published} == (
            {"127.0.0.1"} if service == "gateway" else set()
        )


def test_a_crashed_service_costs_no_answer_and_comes_back(project: Project) -> None:
    (reranker,) = project.containers("reranker")
    before = project.podman.inspect("container", reranker)["State"]["Pid"]
    project.crash(reranker)
    with project.client() as client:
        reply = client.post("/v1/query", json={"query": QUESTION, "collections": [COLLECTION]})
    assert reply.status_code == 200, reply.text
    assert_answered(reply.json())
    project.wait_until_full()
    assert project.podman.inspect("container", reranker)["State"]["Pid"] not in (0, before)
    assert ask(project)["degraded"] == []


def test_a_second_embedder_takes_a_share(project: Project) -> None:
    project.compose("up", "--detach", "--no-recreate", "--scale", "embedder=2")
    project.wait(
        lambda: [each["state"] for each in project.status("embedder")] == ["serving"] * 2,
        "the gateway knows two embedders",
    )
    before = [embedded(project, name) for name in project.containers("embedder")]
    for number in range(60):  # each question differs, so that none comes from a cache
        ask(project, f"{QUESTION} {number}")
    after = [embedded(project, name) for name in project.containers("embedder")]
    assert len(after) == 2
    assert all(now > was for was, now in zip(before, after, strict=True)), (before, after)


def embedded(project: Project, container: str) -> float:
    """Calls that an embedder has served."""
    program = (
        "import urllib.request as r;"
        "print(r.urlopen('http://127.0.0.1:9100/metrics', timeout=5).read().decode())"
    )
    page = project.podman("exec", container, "python", "-c", program)
    return sum(
        float(line.split()[-1])
        for line in page.splitlines()
        if line.startswith("raglan_rpc_server_duration_seconds_count") and 'Embed"' in line
    )


def test_replicas_restart_one_after_another_without_a_failed_request(project: Project) -> None:
    statuses: list[int] = []
    degraded: list[object] = []
    stopping = threading.Event()

    def ask_on() -> None:
        number = 0
        with project.client() as client:
            while not stopping.is_set():
                number += 1
                body = {"query": f"{QUESTION} ({number})", "collections": [COLLECTION]}
                reply = client.post("/v1/query", json=body)
                statuses.append(reply.status_code)
                degraded.append(reply.json().get("degraded"))
                time.sleep(0.05)

    asking = threading.Thread(target=ask_on)
    asking.start()
    try:
        for name in project.containers("embedder"):
            project.podman("restart", "--time", "20", name)
            project.wait(
                lambda: [each["state"] for each in project.status("embedder")] == ["serving"] * 2,
                f"{name} is back",
            )
    finally:
        stopping.set()
        asking.join()
    assert set(statuses) == {200}
    assert all(each == [] for each in degraded), degraded
    assert len(statuses) > 20


def test_a_mesh_started_again_knows_its_documents(project: Project) -> None:
    project.down()
    project.compose("up", "--detach")
    project.wait_until_full()
    assert_answered(ask(project))


def test_a_backup_brings_back_what_was_destroyed(project: Project) -> None:
    before = ask(project)
    folder, ingester = "/var/lib/raglan/backup", ("--ingester", "ingester:7105")
    project.raglan("backup", folder, *ingester)
    project.down("--volumes")
    project.compose("up", "--detach")
    project.wait_until_full()
    with project.client() as client:
        reply = client.post("/v1/query", json={"query": QUESTION, "collections": [COLLECTION]})
        assert reply.status_code == 404, reply.text
    project.raglan("restore", folder, *ingester)
    after = ask(project)
    assert (after["answer"], after["citations"]) == (before["answer"], before["citations"])
