"""Kept answers go with their documents, over SQLite and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from kept_answers import archive, new_answer, turns
from raglan.database import Database, now_ms, url_of
from raglan.errors import Conflict, NotFound, RaglanError, Unavailable
from raglan.rpc.server import Server, Service
from raglan.settings import GrpcSettings
from raglan.v1 import common_pb2, ingester_pb2, ingester_pb2_grpc, retriever_pb2, retriever_pb2_grpc
from raglan_gateway.api import document_changes, documents, jobs
from raglan_gateway.api.error_handlers import install_error_handlers
from raglan_gateway.api.schemas import QueryRequest
from raglan_gateway.caches import control
from raglan_gateway.caches.similar import SimilarQuestions
from raglan_gateway.conversation import changes, rows
from raglan_gateway.conversation.archive import Archive
from raglan_gateway.conversation.records import NewAnswer, Owner
from raglan_gateway.conversation.sessions import Sessions
from raglan_gateway.deletions import Deletions
from raglan_gateway.mesh import Mesh
from raglan_gateway.settings import GatewaySettings
from raglan_gateway.shared.answer_cache import AnswerCache
from raglan_gateway.store import SCHEMA
from raglan_gateway.store.model import DocumentChange

PATH = "/v1/collections/default/documents"
FILTER = {"filter": {"eq": {"field": "team", "value": "x"}}}
NOBODY = Owner("", "")
LATER_MS = 2 * changes.CLOCK_SKEW_MS


class Ingester(ingester_pb2_grpc.IngesterServiceServicer):
    """Knows the documents `a` and `b`. `error` is raised by every change."""

    def __init__(self) -> None:
        self.error: RaglanError | None = None
        self.matches = 1
        self.unfinished: list[str] = []
        self.jobs: dict[str, ingester_pb2.Job] = {}
        self.asked: list[str] = []

    def _change(self, method: str) -> None:
        self.asked.append(method)
        if self.error is not None:
            raise self.error

    def job(self, kind: str, *, keeps_access: bool = False) -> ingester_pb2.Job:
        made = ingester_pb2.Job(
            id=f"job-{len(self.jobs)}",
            collection="default",
            kind=kind,
            keeps_access=keeps_access,
            status=ingester_pb2.JOB_STATUS_RUNNING,
        )
        self.jobs[made.id] = made
        return made

    def end(self, *, changed: int, status: Any = ingester_pb2.JOB_STATUS_SUCCEEDED) -> None:
        """End the newest job."""
        job = list(self.jobs.values())[-1]
        job.status = status
        job.stages.add(stage=job.kind, done=changed, total=changed)
        job.finished_at.GetCurrentTime()

    async def DeleteDocument(self, request: Any, context: Any) -> Any:
        self._change("DeleteDocument")
        if request.document_id not in ("a", "b"):
            raise NotFound("There is no such document.")
        return ingester_pb2.DeleteDocumentResponse(deleted_chunks=1, revision=2)

    async def BatchDeleteDocuments(self, request: Any, context: Any) -> Any:
        self._change("BatchDeleteDocuments")
        missing = [each for each in request.document_ids if each != "a"]
        return ingester_pb2.BatchDeleteDocumentsResponse(missing_ids=missing, revision=2)

    async def UpdateDocument(self, request: Any, context: Any) -> Any:
        self._change("UpdateDocument")
        return ingester_pb2.Document(
            id=request.document_id, status=ingester_pb2.DOCUMENT_STATUS_READY, revision=2
        )

    async def ChangeDocuments(self, request: Any, context: Any) -> Any:
        self._change("ChangeDocuments")
        reply = ingester_pb2.ChangeDocumentsResponse(matches=self.matches, is_exact=True)
        if self.matches:
            reply.job.CopyFrom(self.job("tag" if request.HasField("tagging") else "delete"))
        return reply

    async def RetryJob(self, request: Any, context: Any) -> Any:
        self._change("RetryJob")
        job = self.jobs[request.id]
        job.status = ingester_pb2.JOB_STATUS_RUNNING
        job.ClearField("finished_at")
        return job

    async def GetJob(self, request: Any, context: Any) -> Any:
        if request.id not in self.jobs:
            raise NotFound("There is no such job.")
        return self.jobs[request.id]

    async def ListJobs(self, request: Any, context: Any) -> Any:
        return ingester_pb2.ListJobsResponse(jobs=self.jobs.values())

    async def GetRevisions(self, request: Any, context: Any) -> Any:
        return ingester_pb2.GetRevisionsResponse(unfinished=self.unfinished)


class Retriever(retriever_pb2_grpc.RetrieverServiceServicer):
    """Has every collection."""

    async def GetCollection(self, request: Any, context: Any) -> Any:
        return retriever_pb2.Collection(name=request.name)


class Gateway:
    """Routes that change documents, and the answers that are kept beside them."""

    def __init__(self, client: httpx.AsyncClient, kept: Archive, deletions: Deletions) -> None:
        self.client = client
        self.kept = kept
        self.deletions = deletions

    def answer(self, id_: str, *documents: str, began_ms: int = 0, **more: Any) -> None:
        """Keep an answer of documents, in a session of its own."""
        used = [("default", each) for each in documents]
        began_ms = began_ms or now_ms()
        self.kept.keep(new_answer(id_, id_, id_, "", b"{}", used, began_ms=began_ms, **more))

    async def held(self, *ids: str) -> list[str]:
        """Return those of the answers that are kept."""
        return [id_ for id_ in ids if await turns(self.kept, id_, 10)]

    async def status(self, method: str, path: str, **options: Any) -> int:
        return (await self.client.request(method, path, **options)).status_code

    async def noted(self) -> int:
        """Return how many rows of changes there are."""

        def work(session: Any, owner: Any) -> int:
            return int(session.scalar(sa.select(sa.func.count()).select_from(DocumentChange)))

        return await self.kept.run(work)

    async def age(self) -> None:
        """Make every change two minutes older."""

        def work(session: Any, owner: Any) -> None:
            earlier = DocumentChange.began_ms - 120_000
            session.execute(sa.update(DocumentChange).values(began_ms=earlier))

        await self.kept.run(work)


@pytest.fixture
async def ingester() -> Ingester:
    return Ingester()


@pytest.fixture
async def gateway(url: str, tmp_path: Path, ingester: Ingester) -> AsyncIterator[Gateway]:
    addresses, servers = {}, []
    for name, add, servicer in (
        ("Ingester", ingester_pb2_grpc.add_IngesterServiceServicer_to_server, ingester),
        ("Retriever", retriever_pb2_grpc.add_RetrieverServiceServicer_to_server, Retriever()),
    ):

        def register(server: Any, add: Any = add, servicer: Any = servicer) -> None:
            add(servicer, server)

        settings = GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0)
        server = Server(Service(f"raglan.v1.{name}Service", register), settings)
        await server.start()
        servers.append(server)
        addresses[f"{name.lower()}_address"] = f"127.0.0.1:{server.port}"
    mesh = Mesh(GatewaySettings(**addresses))
    async with archive(url, tmp_path) as kept:
        answers, similar = AnswerCache(0, mesh.revisions), SimilarQuestions(0, 1, 0)
        deletions = Deletions(answers, kept, similar, mesh.changing_jobs, mesh.revisions)
        app = FastAPI()
        install_error_handlers(app)
        app.include_router(documents.router(mesh, deletions, GatewaySettings()))
        app.include_router(document_changes.router(mesh, deletions))
        app.include_router(jobs.router(mesh, deletions, 15))
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield Gateway(client, kept, deletions)
    await mesh.close()
    for server in servers:
        await server.stop()


async def test_a_refused_change_keeps_the_answers(gateway: Gateway, ingester: Ingester) -> None:
    gateway.answer("of-a", "a")
    assert await gateway.status("DELETE", f"{PATH}/unknown") == 404
    ingester.error = Conflict("The document is queued; change it when it is ready.")
    assert await gateway.status("DELETE", f"{PATH}/a") == 409
    assert await gateway.status("PATCH", f"{PATH}/a", json={"access": ["hr"]}) == 409
    assert await gateway.status("POST", f"{PATH}/delete", json=FILTER) == 409
    await gateway.age()
    await gateway.deletions.follow()
    assert await gateway.held("of-a") == ["of-a"]
    assert await gateway.noted() == 0


async def test_what_changes_no_document_keeps_the_answers(
    gateway: Gateway, ingester: Ingester
) -> None:
    gateway.answer("of-a", "a")
    gateway.answer("of-b", "b")
    ingester.matches = 0
    assert await gateway.status("POST", f"{PATH}/delete", json=FILTER) == 200
    assert await gateway.noted() == 0
    ingester.matches = 1
    assert await gateway.status("POST", f"{PATH}/delete", json=FILTER) == 200
    ingester.end(changed=0)
    await gateway.deletions.follow()
    assert await gateway.held("of-a", "of-b") == ["of-a", "of-b"]
    assert await gateway.noted() == 0
    assert await gateway.status("POST", f"{PATH}/delete", json={"ids": ["a", "b"]}) == 200
    assert await gateway.held("of-a", "of-b") == ["of-b"]


async def test_new_metadata_keep_the_answers_and_new_tags_do_not(
    gateway: Gateway, ingester: Ingester
) -> None:
    gateway.answer("of-a", "a")
    metadata = {"metadata": {"year": 2026}}
    assert await gateway.status("PATCH", f"{PATH}/a", json=metadata) == 200
    assert await gateway.status("POST", f"{PATH}/tag", json=FILTER | metadata) == 200
    assert await gateway.noted() == 0
    ingester.end(changed=1)
    retried = ingester.job("tag", keeps_access=True).id
    assert await gateway.status("POST", f"/v1/jobs/{retried}/retry") == 200
    assert await gateway.noted() == 0
    tags = {"add_access": ["hr"]}
    assert await gateway.status("POST", f"{PATH}/tag", json=FILTER | metadata | tags) == 200
    ingester.end(changed=1)
    await gateway.deletions.follow()
    assert await gateway.held("of-a") == []
    gateway.answer("again", "a", began_ms=now_ms() + LATER_MS)
    assert await gateway.status("PATCH", f"{PATH}/a", json={"access": ["hr"]}) == 200
    assert await gateway.held("again") == []


async def test_no_answer_from_before_the_end_of_a_job_is_kept(
    gateway: Gateway, ingester: Ingester
) -> None:
    gateway.answer("before", "a")
    assert await gateway.status("POST", f"{PATH}/delete", json=FILTER) == 200
    gateway.answer("during", "a")
    began_ms = now_ms()
    await gateway.deletions.follow()
    assert await gateway.held("before", "during") == ["before", "during"]
    ingester.end(changed=1)
    await gateway.deletions.follow()
    gateway.answer("in flight", "a", began_ms=began_ms)
    gateway.answer("after", "b", began_ms=now_ms() + LATER_MS)
    gateway.answer("elsewhere", began_ms=began_ms)
    ids = ("before", "during", "in flight", "after", "elsewhere")
    assert await gateway.held(*ids) == ["after", "elsewhere"]


async def test_an_answer_that_is_made_during_a_deletion_is_not_kept(gateway: Gateway) -> None:
    began_ms = now_ms()
    gateway.answer("of-b", "b", began_ms=began_ms)
    assert await gateway.status("DELETE", f"{PATH}/a") == 200
    gateway.answer("in flight", "a", "b", began_ms=began_ms)
    gateway.answer("also of-b", "b", began_ms=began_ms)
    gateway.answer("later", "a", began_ms=now_ms() + LATER_MS)
    ids = ("of-b", "in flight", "also of-b", "later")
    assert await gateway.held(*ids) == ["of-b", "also of-b", "later"]


async def test_an_answer_goes_with_the_documents_of_the_history_that_it_read(
    gateway: Gateway,
) -> None:
    """Its session's turns are deleted while it is made, so they cannot be looked up any more."""
    gateway.answer("before", "a")
    sessions = Sessions(gateway.kept, max_turns=10, max_chars=1_000)
    asked = await sessions.begin(QueryRequest(query="during", session_id="before"))
    assert [turn.text for turn in asked.body.history] == ["before"]
    assert await gateway.status("DELETE", f"{PATH}/a") == 200
    of_b = [common_pb2.Passage(collection="default", document_id="b")]
    sessions.keep(asked, control.DEFAULT, "Words of a.", b"{}", of_b)
    assert await turns(gateway.kept, "before", 10) == []


async def test_a_retried_job_is_followed(gateway: Gateway, ingester: Ingester) -> None:
    assert await gateway.status("POST", f"{PATH}/delete", json=FILTER) == 200
    ingester.end(changed=0, status=ingester_pb2.JOB_STATUS_FAILED)
    await gateway.deletions.follow()
    gateway.answer("of-a", "a", began_ms=now_ms() + LATER_MS)
    assert await gateway.status("POST", "/v1/jobs/job-0/retry") == 200
    assert await gateway.held("of-a") == ["of-a"]
    ingester.end(changed=1)
    await gateway.deletions.follow()
    assert await gateway.held("of-a") == []
    ingester.error = Conflict("The job has not ended.")
    noted = await gateway.noted()
    assert await gateway.status("POST", "/v1/jobs/job-0/retry") == 409
    assert await gateway.noted() == noted


@pytest.mark.parametrize("document_ids", [["a"], []])
async def test_a_change_whose_gateway_died_is_closed(
    gateway: Gateway, ingester: Ingester, document_ids: list[str]
) -> None:
    """It may have died before it knew the job."""
    gateway.answer("of-a", "a")
    await gateway.kept.note_change("default", document_ids)
    ingester.job("delete")
    await gateway.deletions.follow()
    assert await gateway.held("of-a") == ["of-a"]
    await gateway.age()
    await gateway.deletions.follow()
    assert await gateway.held("of-a") == ["of-a"]  # the job goes on
    ingester.end(changed=1)
    await gateway.deletions.follow()
    assert await gateway.held("of-a") == []


async def test_a_job_that_the_ingester_does_not_know_any_more_has_ended(gateway: Gateway) -> None:
    gateway.answer("of-a", "a")
    change = await gateway.kept.note_change("default")
    await gateway.kept.follow_job(change, "job-unknown")
    await gateway.deletions.follow()
    assert await gateway.held("of-a") == []


async def test_answers_go_once_the_index_has_followed(gateway: Gateway, ingester: Ingester) -> None:
    ingester.error, ingester.unfinished = Unavailable("The index is away."), ["default"]
    assert await gateway.status("DELETE", f"{PATH}/a") == 503
    await gateway.age()
    await gateway.deletions.follow()
    gateway.answer("meanwhile", "a")  # searches still find it
    assert await gateway.held("meanwhile") == ["meanwhile"]
    ingester.unfinished = []
    await gateway.deletions.follow()
    assert await gateway.held("meanwhile") == []


async def test_nothing_is_deleted_while_the_change_cannot_be_noted(
    gateway: Gateway, ingester: Ingester
) -> None:
    gateway.kept.is_away = True
    assert await gateway.status("DELETE", f"{PATH}/a") == 503
    assert await gateway.status("POST", f"{PATH}/delete", json=FILTER) == 503
    assert ingester.asked == []
    gateway.kept.is_away = False


async def test_changes_are_known_for_longer_than_any_answer_waits(gateway: Gateway) -> None:
    day_ms = changes.CHANGES_KEPT_MS
    gateway.answer("too old", "a", began_ms=now_ms() - day_ms - 1)
    gateway.answer("waited", "a", began_ms=now_ms() - day_ms + 60_000)
    assert await gateway.held("too old", "waited") == ["waited"]
    assert await gateway.status("DELETE", f"{PATH}/a") == 200
    await gateway.kept.purge()
    assert await gateway.noted() == 1

    def work(session: Any, owner: Any) -> None:
        session.execute(sa.update(DocumentChange).values(ended_ms=now_ms() - day_ms - 1))

    await gateway.kept.run(work)
    await gateway.kept.purge()
    assert await gateway.noted() == 0


async def test_a_change_waits_for_answers_that_are_being_inserted(url: str, tmp_path: Path) -> None:
    """Two gateways on one database; neither sees what the other has not committed."""
    inserting, other = (Database(url_of(url, tmp_path), SCHEMA) for _ in range(2))
    inserting.migrate()
    answer: NewAnswer = new_answer("q", None, "", "", b"{}", [("default", "a")])
    change = await other.run(lambda session: changes.note_change(session, NOBODY, "default", ["a"]))
    inserted, commit = threading.Event(), threading.Event()

    def insert(session: Any) -> None:
        rows.insert_answers(session, [answer])
        inserted.set()
        commit.wait(10)

    writing = asyncio.create_task(inserting.run(insert))
    await asyncio.to_thread(inserted.wait, 10)
    deleting = asyncio.create_task(
        other.run(lambda session: changes.delete_changed(session, NOBODY, change))
    )
    done, _ = await asyncio.wait([deleting], timeout=0.3)
    assert not done
    commit.set()
    await asyncio.gather(writing, deleting)
    with pytest.raises(NotFound):
        await other.run(lambda session: rows.find_answer(session, answer.owner, "q"))
    for database in (inserting, other):
        await database.close()
