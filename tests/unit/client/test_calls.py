"""Retries, deadlines, keys and errors, against a server of scripted replies."""

from __future__ import annotations

import json
import time
from email.utils import formatdate
from pathlib import Path

import ports
import pytest
from raglan import client
from raglan.client import AsyncClient, Client, errors, transport
from scripted_server import Reply

ENVELOPE = {
    "error": {
        "type": "overloaded",
        "code": "RESOURCE_EXHAUSTED",
        "message": "The queue is full.",
        "request_id": "abc",
        "retryable": True,
    }
}
COLLECTIONS = b'{"collections": []}'
JOB = {
    "id": "j1", "collection": "c", "status": "running", "stages": {}, "errors": [], "warnings": [],
    "warning_count": 0, "documents": 1, "replaced": 0, "unchanged": 0, "created_at": "now",
    "finished_at": None,
}  # fmt: skip


def refusal(status=429, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps(ENVELOPE).encode(), headers)


def test_retry_after_is_respected(server):
    server.replies = [refusal(Retry_After="1"), Reply(body=COLLECTIONS)]
    with Client(server.url) as raglan:
        assert raglan.list_collections() == []
    first, second = server.requests
    assert second.at - first.at >= 1.0


async def test_the_async_client_retries_alike(server):
    server.replies = [refusal(503, Retry_After="1"), Reply(body=COLLECTIONS)]
    async with AsyncClient(server.url) as raglan:
        assert await raglan.list_collections() == []
    first, second = server.requests
    assert second.at - first.at >= 1.0


def test_a_wait_beyond_the_deadline_is_not_begun(server):
    server.replies = [refusal(Retry_After="60")]
    began = time.monotonic()
    with Client(server.url, timeout_s=5) as raglan, pytest.raises(client.RateLimited) as caught:
        raglan.list_collections()
    assert time.monotonic() - began < 5
    assert (caught.value.status, caught.value.retry_after_s) == (429, 60)
    assert (caught.value.type, caught.value.request_id) == ("overloaded", "abc")
    assert caught.value.retryable
    assert str(caught.value) == "The queue is full."
    assert len(server.requests) == 1


def test_retries_are_counted(server):
    server.replies = [refusal(503)]
    with Client(server.url, max_retries=1) as raglan, pytest.raises(client.Unavailable):
        raglan.list_collections()
    assert len(server.requests) == 2


def test_what_must_not_happen_twice_is_sent_once(server):
    server.replies = [refusal(503)]
    with Client(server.url) as raglan, pytest.raises(client.Unavailable):
        raglan.retry_job("j1")
    assert len(server.requests) == 1


def test_a_broken_connection_is_tried_again(server):
    server.replies = [Reply(body=b"{", breaks=True), Reply(body=COLLECTIONS)]
    with Client(server.url) as raglan:
        assert raglan.list_collections() == []


def test_one_deadline_holds_for_the_call_and_travels_with_a_query(server):
    server.replies = [Reply(pause_s=1.5)]
    with Client(server.url) as raglan, pytest.raises(client.DeadlineExceeded):
        raglan.search("a", timeout_s=0.2)
    # What the client itself has used by then is taken off.
    assert 100 <= json.loads(server.requests[0].body)["timeout_ms"] <= 200


def test_the_second_attempt_has_the_rest_of_the_time(server):
    server.replies = [refusal(Retry_After="1"), refusal(404)]
    with Client(server.url) as raglan, pytest.raises(client.NotFound):
        raglan.search("a", timeout_s=3)
    first, second = (json.loads(request.body)["timeout_ms"] for request in server.requests)
    assert 2000 < first <= 3000
    assert 100 <= second <= 2000


def test_nobody_who_answers_is_said_with_the_address():
    url = f"http://127.0.0.1:{ports.free_port()}"
    with Client(url, max_retries=0) as raglan, pytest.raises(client.ConnectionFailed) as caught:
        raglan.list_collections()
    assert url in caught.value.message
    assert not caught.value.reached


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"collections": 1}'])
def test_another_server_is_told_apart(server, body):
    server.replies = [Reply(body=body)]
    with Client(server.url) as raglan, pytest.raises(client.ProtocolError):
        raglan.list_collections()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, client.InvalidRequest), (401, client.Unauthorized), (403, client.Forbidden),
        (404, client.NotFound), (409, client.Conflict), (413, client.InvalidRequest),
        (422, client.InvalidRequest), (500, client.ServerError), (501, client.ServerError),
        (504, client.GatewayTimeout), (504, client.DeadlineExceeded), (507, client.ServerError),
    ],
)  # fmt: skip
def test_each_status_is_an_error_of_its_own(server, status, kind):
    server.replies = [refusal(status)]
    with Client(server.url) as raglan, pytest.raises(kind) as caught:
        raglan.list_collections()
    assert caught.value.status == status


def test_the_key_is_sent_and_never_shown(server, monkeypatch):
    server.replies = [Reply(body=COLLECTIONS)]
    monkeypatch.setenv("RAGLAN_API_KEY", "rgl_environment")
    with Client(server.url) as raglan:
        raglan.list_collections()
    with Client(server.url, api_key="rgl_argument") as raglan:
        raglan.list_collections()
        assert "rgl_argument" not in repr(raglan) + str(vars(raglan))
    with Client(server.url, api_key="") as raglan:
        raglan.list_collections()
    sent = [request.headers.get("Authorization") for request in server.requests]
    assert sent == ["Bearer rgl_environment", "Bearer rgl_argument", None]


@pytest.mark.parametrize("key", ["a b", "a\nb", "schlüssel"])
def test_a_key_that_is_none_is_refused_unsent(key):
    with pytest.raises(ValueError, match="api_key") as caught:
        Client(api_key=key)
    assert key not in str(caught.value)


def test_a_redirect_does_not_take_the_key_elsewhere(server):
    server.replies = [Reply(302, b"", {"Location": "/elsewhere"})]
    with Client(server.url, api_key="rgl_key") as raglan, pytest.raises(client.Refused):
        raglan.list_collections()
    assert len(server.requests) == 1


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://host", "http://"])
def test_an_address_that_cannot_work_is_refused(url):
    with pytest.raises(ValueError, match="base_url"):
        Client(url)


def test_a_name_cannot_leave_its_place_in_the_path(server):
    server.replies = [refusal(404)]
    with Client(server.url) as raglan:
        for name in ("../../healthz", "..", "a/b?c#d"):
            with pytest.raises(client.NotFound):
                raglan.get_collection(name)
    assert [request.path for request in server.requests] == [
        "/v1/collections/..%2F..%2Fhealthz",
        "/v1/collections/%2E%2E",
        "/v1/collections/a%2Fb%3Fc%23d",
    ]


def events(*pairs):
    return "".join(f"event: {n}\ndata: {json.dumps(d)}\n\n" for n, d in pairs).encode()


STREAM = {"Content-Type": "text/event-stream"}


def test_an_error_in_a_stream_is_raised_after_the_events_before_it(server):
    body = events(
        ("start", {"id": "a", "trace_id": "b"}), ("news", {}), ("error", ENVELOPE["error"])
    )
    server.replies = [Reply(body=body, headers=STREAM)]
    seen = []
    with (
        Client(server.url) as raglan,
        raglan.stream("a") as stream,
        pytest.raises(client.RateLimited),
    ):
        seen.extend(stream)
    assert [type(event) for event in seen] == [client.StreamStart]


def test_a_stream_without_an_end_is_an_error(server):
    server.replies = [Reply(body=events(("delta", {"text": "a"})), headers=STREAM)]
    with (
        Client(server.url) as raglan,
        raglan.stream("a") as stream,
        pytest.raises(client.ConnectionFailed),
    ):
        list(stream)


async def test_a_stream_is_opened_again_while_it_is_refused(server):
    body = events(("delta", {"text": "a"}), ("done", {}))
    server.replies = [refusal(503, Retry_After="1"), Reply(body=body, headers=STREAM)]
    async with AsyncClient(server.url) as raglan, raglan.stream("a") as stream:
        assert [event.text async for event in stream] == ["a"]


def test_a_job_is_followed_over_a_broken_stream(server):
    server.replies = [
        Reply(body=events(("job", JOB)), headers=STREAM),
        Reply(body=b"event: job\n", headers=STREAM, breaks=True),
        refusal(503, Retry_After="1"),
        Reply(body=events(("job", JOB | {"status": "partial"})), headers=STREAM),
    ]
    seen = []
    with Client(server.url) as raglan:
        job = raglan.wait_for_job("j1", on_change=lambda job: seen.append(job.status))
    assert job.status == "partial"
    assert seen == ["running", "partial"]


def test_a_job_that_failed_is_raised_with_its_reason(server):
    failed = JOB | {"status": "failed", "errors": [{"document_id": "a", "message": "Too long."}]}
    server.replies = [Reply(body=events(("job", failed)), headers=STREAM)]
    with Client(server.url) as raglan, pytest.raises(client.JobFailed, match="Too long") as caught:
        raglan.wait_for_job("j1")
    assert caught.value.job.id == "j1"


def test_waiting_for_a_job_ends_with_its_time(server):
    server.replies = [Reply(body=events(("job", JOB)), headers=STREAM)]
    with Client(server.url) as raglan, pytest.raises(client.DeadlineExceeded):
        raglan.wait_for_job("j1", timeout_s=1.5)


async def test_an_upload_is_sent_whole_again_with_its_progress(server, tmp_path: Path):
    content = bytes(range(256)) * 4000
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    accepted = Reply(202, b'{"job_id": "j1"}')
    server.replies = [refusal(429, Retry_After="1"), accepted]
    told: list[tuple[int, int]] = []
    async with AsyncClient(server.url) as raglan:
        job = await raglan.upload_files(
            "c", [path, ("b.txt", b"text")], metadata={"a": 1},
            on_progress=lambda sent, total: told.append((sent, total)),
        )  # fmt: skip
    assert job == "j1"
    bodies = [request.body for request in server.requests]
    assert bodies[0] == bodies[1]
    assert content in bodies[1]
    assert b'filename="b.txt"' in bodies[1]
    assert b'{"a": 1}' in bodies[1]
    size = len(bodies[1])
    assert told[-1] == (size, size)
    assert len(told) > 4


def test_an_upload_of_nothing_and_of_a_missing_file_are_refused_unsent(tmp_path):
    with Client() as raglan:
        with pytest.raises(ValueError, match="files is empty"):
            raglan.upload_files("c", [])
        with pytest.raises(FileNotFoundError):
            raglan.upload_files("c", [tmp_path / "none"])


def test_retry_after_may_be_a_date():
    assert 28 < errors.seconds(formatdate(time.time() + 30, usegmt=True)) <= 30
    assert errors.seconds("soon") is None


def source(status):
    counts = dict.fromkeys(("listed", "added", "changed", "deleted", "held", "skipped"), 0)
    times = dict.fromkeys(("started_at", "finished_at", "succeeded_at", "next_at"))
    numbers = dict.fromkeys(("every_s", "documents", "failed_documents", "failures"), 1)
    found = {"name": "wiki", "kind": "folder", "collection": "c", "status": status, "error": ""}
    return Reply(
        body=json.dumps(
            found | times | numbers | {"last_sync": counts, "skipped_reasons": []}
        ).encode()
    )


def test_a_source_is_synced_and_waited_for(server, monkeypatch):
    monkeypatch.setattr(transport, "FOLLOW_S", 0.01)
    server.replies = [source("due"), source("syncing"), refusal(503), source("held")]
    with Client(server.url, max_retries=0) as raglan:
        assert raglan.sync_source("wiki", accept_deletions=True).status == "due"
        assert raglan.wait_for_source("wiki").status == "held"
    asked = [(request.method, request.path) for request in server.requests]
    assert asked[0] == ("POST", "/v1/sources/wiki/sync?accept_deletions=true")
    assert asked[1:] == [("GET", "/v1/sources/wiki")] * 3


def test_the_wait_for_a_source_ends(server):
    server.replies = [source("syncing")]
    with Client(server.url) as raglan, pytest.raises(client.DeadlineExceeded):
        raglan.wait_for_source("wiki", timeout_s=0.2)
