"""An exact match leads, through search, fusion and reranking."""

from __future__ import annotations

import httpx
import identifier_set
import mesh_process


def test_identifiers_are_found_among_texts_that_look_like_the_question(
    client: httpx.Client, collection: str
) -> None:
    held = identifier_set.make()
    documents = [{"id": id_, "text": text} for id_, text in held.texts.items()]
    job = mesh_process.ingest(client, collection, documents)
    assert job["status"] == "succeeded", job
    missed = []
    for number, (name, holder) in enumerate(held.holders.items()):
        for question in ("{}", identifier_set.QUESTIONS[1 + number % 3]):
            body = {"query": question.format(name), "collections": [collection], "top_k": 1}
            found = client.post("/v1/search", json=body).json()
            if found["passages"][0]["document_id"] != holder:
                missed.append((body["query"], found["passages"][0]["text"]))
    assert len(missed) <= 2, missed
