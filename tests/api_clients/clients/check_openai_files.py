"""The `openai` client's files and vector stores, from the upload to a cited answer."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Iterator
from typing import Any

import openai
import pytest

TEXTS = {
    "pumps.txt": b"The feed pump of line two is stopped by the red lever beside the boiler.",
    "valves.md": b"# Valves\n\nThe relief valve opens at nine bar and closes at eight.",
}


@pytest.fixture
def client() -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{os.environ['QUOTES_URL']}/v1", api_key="none", max_retries=0,
        _strict_response_validation=True,
    )  # fmt: skip


@pytest.fixture
def store(client: openai.OpenAI) -> Iterator[Any]:
    made = client.vector_stores.create(name="Plant", metadata={"site": "north"})
    yield made
    client.vector_stores.delete(made.id)


def uploaded(client: openai.OpenAI, name: str) -> str:
    return client.files.create(file=(name, TEXTS[name]), purpose="assistants").id


def test_a_file_waits_is_read_listed_and_deleted(client: openai.OpenAI) -> None:
    file = client.files.create(file=("pumps.txt", TEXTS["pumps.txt"]), purpose="user_data")
    assert (file.filename, file.bytes, file.status) == (
        "pumps.txt",
        len(TEXTS["pumps.txt"]),
        "processed",
    )
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == TEXTS["pumps.txt"]
    assert file in list(client.files.list())
    assert file in list(client.files.list(purpose="user_data"))
    assert file not in list(client.files.list(purpose="assistants"))
    assert client.files.delete(file.id).deleted
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            call(file.id)


def test_pages_of_files(client: openai.OpenAI) -> None:
    made = {uploaded(client, "pumps.txt") for _ in range(5)}
    seen = [file.id for file in client.files.list(limit=2)]
    assert made <= set(seen)
    assert len(seen) == len(set(seen))
    for id_ in made:
        client.files.delete(id_)


def test_from_a_file_to_a_cited_answer(client: openai.OpenAI, store: Any) -> None:
    file_id = uploaded(client, "pumps.txt")
    attached = client.vector_stores.files.create_and_poll(
        file_id, vector_store_id=store.id, attributes={"line": 2, "kind": "pump", "old": False}
    )
    assert (attached.status, attached.id) == ("completed", file_id)
    assert attached.attributes == {"line": 2, "kind": "pump", "old": False}
    tool: Any = {"type": "file_search", "vector_store_ids": [store.id]}
    reply = client.responses.create(
        model="raglan", input="How is the feed pump of line two stopped?", tools=[tool]
    )
    assert "red lever" in reply.output_text
    message = reply.output[-1]
    assert message.type == "message"
    assert message.content[0].type == "output_text"
    cited = message.content[0].annotations[0]
    assert cited.type == "file_citation"
    assert (cited.file_id, cited.filename) == (file_id, "pumps.txt")
    page = client.vector_stores.files.content(file_id, vector_store_id=store.id)
    assert [part.text for part in page] == [TEXTS["pumps.txt"].decode()]
    client.vector_stores.files.delete(file_id, vector_store_id=store.id)
    assert list(client.vector_stores.files.list(store.id)) == []
    assert client.files.retrieve(file_id).id == file_id, "the file itself stays"
    client.files.delete(file_id)


def test_a_batch_a_search_and_filters(client: openai.OpenAI, store: Any) -> None:
    ids = [uploaded(client, name) for name in TEXTS]
    files: Any = [
        {"file_id": ids[0], "attributes": {"n": 1}},
        {"file_id": ids[1], "attributes": {"n": 2}},
    ]
    batch = client.vector_stores.file_batches.create_and_poll(store.id, files=files)
    assert batch.status == "completed", batch
    assert (batch.file_counts.completed, batch.file_counts.total) == (2, 2)
    listed = client.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id)
    assert {file.id for file in listed} == set(ids)
    assert {file.id for file in client.vector_stores.files.list(store.id, limit=1)} == set(ids)
    found = client.vector_stores.retrieve(store.id)
    assert (found.status, found.file_counts.completed, found.name) == ("completed", 2, "Plant")
    query = "At how many bar does the relief valve open?"
    best = client.vector_stores.search(store.id, query=query).data[0]
    assert (best.file_id, best.filename, best.attributes) == (ids[1], "valves.md", {"n": 2})
    assert "nine bar" in best.content[0].text
    assert 0 < best.score <= 1
    only: Any = {"type": "lt", "key": "n", "value": 2}
    filtered = client.vector_stores.search(store.id, query=query, filters=only).data
    assert {each.file_id for each in filtered} == {ids[0]}
    for id_ in ids:
        client.files.delete(id_)
    assert list(client.vector_stores.files.list(store.id)) == [], "deleted with its file"


def test_attributes_change(client: openai.OpenAI, store: Any) -> None:
    file_id = uploaded(client, "valves.md")
    client.vector_stores.files.create_and_poll(
        file_id, vector_store_id=store.id, attributes={"n": 1}
    )
    changed = client.vector_stores.files.update(
        file_id, vector_store_id=store.id, attributes={"n": 5}
    )
    assert (changed.status, changed.attributes) == ("completed", {"n": 5})
    only: Any = {"type": "eq", "key": "n", "value": 5}
    assert client.vector_stores.search(store.id, query="relief valve", filters=only).data
    client.files.delete(file_id)


def test_a_vector_store_with_files_from_its_start(client: openai.OpenAI) -> None:
    file_id = uploaded(client, "pumps.txt")
    store = client.vector_stores.create(
        file_ids=[file_id],
        chunking_strategy={
            "type": "static", "static": {"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 20}
        },
    )  # fmt: skip
    assert store.file_counts.total == 1
    client.vector_stores.files.poll(file_id, vector_store_id=store.id)
    changed = client.vector_stores.update(store.id, name="Renamed", metadata={"a": "b"})
    assert (changed.name, changed.metadata) == ("Renamed", {"a": "b"})
    assert store.id in [each.id for each in client.vector_stores.list()]
    assert client.vector_stores.delete(store.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.retrieve(store.id)
    client.files.delete(file_id)


def test_a_collection_made_elsewhere_is_a_vector_store(client: openai.OpenAI) -> None:
    store = client.vector_stores.retrieve("default")
    assert (store.name, store.file_counts.completed) == ("default", 2)
    assert {file.id for file in client.vector_stores.files.list("default")} == {
        "devices.md", "releases.md"
    }  # fmt: skip


def test_a_vector_store_without_files_is_searched_and_finds_nothing(
    client: openai.OpenAI, store: Any
) -> None:
    assert (store.file_counts.total, store.usage_bytes, store.status) == (0, 0, "completed")
    only: Any = {"type": "eq", "key": "line", "value": 2}
    for options in ({}, {"filters": only}, {"rewrite_query": False, "max_num_results": 50}):
        page = client.vector_stores.search(store.id, query="Which pump?", **options)
        assert (page.data, page.has_next_page()) == ([], False)
    assert list(client.vector_stores.files.list(store.id)) == []


def test_an_answer_from_a_vector_store_without_files_abstains(
    client: openai.OpenAI, store: Any
) -> None:
    tool: Any = {"type": "file_search", "vector_store_ids": [store.id]}
    asked: Any = {
        "model": "raglan", "input": "Which pump?", "tools": [tool],
        "include": ["file_search_call.results"],
    }  # fmt: skip
    whole = client.responses.create(**asked)
    *_, end = client.responses.create(**asked, stream=True)
    assert end.type == "response.completed"
    for reply in (whole, end.response):
        assert (reply.status, reply.error) == ("completed", None)
        assert reply.output_text == "The documents do not answer this."
        call, message = reply.output
        assert (call.type, call.status, call.results) == ("file_search_call", "completed", [])
        assert message.type == "message"
        assert message.content[0].annotations == []
        assert reply.model_extra["raglan"]["abstained"]


def test_files_of_a_vector_store_without_files(client: openai.OpenAI, store: Any) -> None:
    """Also a file that exists, and was never attached, has no attributes to change here."""
    uploaded_id = uploaded(client, "pumps.txt")
    files = client.vector_stores.files
    for file_id in ("file-" + "0" * 24, uploaded_id):
        for call in (
            lambda id_: files.update(id_, vector_store_id=store.id, attributes={"line": 2}),
            lambda id_: files.retrieve(id_, vector_store_id=store.id),
            lambda id_: files.content(id_, vector_store_id=store.id),
            lambda id_: files.delete(id_, vector_store_id=store.id),
        ):
            with pytest.raises(openai.NotFoundError) as refused:
                call(file_id)
            assert set(refused.value.body) == {"message", "type", "param", "code"}
            assert refused.value.code == "not_found"
            assert file_id in refused.value.message
            assert store.id in refused.value.message
    assert client.files.content(uploaded_id).read() == TEXTS["pumps.txt"], "nothing was lost"
    client.files.delete(uploaded_id)


def test_a_file_that_cannot_be_read_says_so(client: openai.OpenAI, store: Any) -> None:
    broken = client.files.create(file=("a.pdf", b"no pdf at all"), purpose="assistants")
    done = client.vector_stores.files.create_and_poll(broken.id, vector_store_id=store.id)
    assert done.status == "failed"
    assert done.last_error
    assert done.last_error.message
    assert client.vector_stores.retrieve(store.id).file_counts.failed == 1
    client.files.delete(broken.id)


BAD_STORES: dict[str, dict[str, Any]] = {
    "name": {"name": "a" * 257},
    "metadata": {"metadata": {str(number): "a" for number in range(17)}},
    "chunking_strategy": {"chunking_strategy": {"type": "semantic"}},
}


@pytest.mark.parametrize("param", BAD_STORES)
def test_a_bad_vector_store(client: openai.OpenAI, param: str) -> None:
    before = len(list(client.vector_stores.list()))
    with pytest.raises(openai.BadRequestError) as refused:
        client.vector_stores.create(**BAD_STORES[param])
    assert refused.value.param == param
    assert len(list(client.vector_stores.list())) == before


def test_a_vector_store_of_a_missing_file_is_not_made(client: openai.OpenAI) -> None:
    before = len(list(client.vector_stores.list()))
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.create(file_ids=["file-" + "0" * 24])
    assert len(list(client.vector_stores.list())) == before


def test_bad_uploads(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as purpose:
        client.files.create(file=("a.txt", b"a"), purpose="fine-tune")
    assert purpose.value.param == "purpose"
    with pytest.raises(openai.BadRequestError):
        client.post("/files", body={"file": "a"}, cast_to=object)
    evil = client.files.create(file=("../../etc/passwd", io.BytesIO(b"a")), purpose="assistants")
    assert client.files.content(evil.id).read() == b"a"
    client.files.delete(evil.id)


@pytest.mark.parametrize("id_", ["file-x", "../../etc/passwd", "file-" + "0" * 24, "%2e%2e"])
def test_ids_that_are_none(client: openai.OpenAI, store: Any, id_: str) -> None:
    with pytest.raises((openai.NotFoundError, openai.BadRequestError)):
        client.vector_stores.files.create(store.id, file_id=id_)
    with pytest.raises((openai.NotFoundError, openai.BadRequestError, ValueError)):
        client.files.retrieve(id_)


def test_ids_of_stores_that_are_none(client: openai.OpenAI) -> None:
    for id_ in ("nowhere", f"vs_{uuid.uuid4().hex[:24]}"):
        for call in (client.vector_stores.retrieve, client.vector_stores.delete,
                     client.vector_stores.files.list):  # fmt: skip
            with pytest.raises(openai.NotFoundError):
                call(id_)
        with pytest.raises(openai.NotFoundError):
            client.vector_stores.search(id_, query="a")
    with pytest.raises(openai.BadRequestError):
        client.vector_stores.retrieve("UPPER CASE")


def test_a_batch_of_another_store_is_none(client: openai.OpenAI, store: Any) -> None:
    file_id = uploaded(client, "pumps.txt")
    batch = client.vector_stores.file_batches.create_and_poll(store.id, file_ids=[file_id])
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.file_batches.retrieve(batch.id, vector_store_id="default")
    with pytest.raises(openai.BadRequestError):
        client.vector_stores.file_batches.create(store.id, file_ids=[])
    client.files.delete(file_id)
