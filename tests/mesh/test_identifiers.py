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


def test_a_row_of_a_long_table_answers_by_its_code(client: httpx.Client, collection: str) -> None:
    rows = "".join(f"| P{n:05} | {n / 7:.2f} EUR |\n" for n in range(4000, 4400))
    text = f"# Price list\n\n| Product | Price |\n|---|---|\n{rows}"
    sent = client.post(
        f"/v1/collections/{collection}/documents", files={"files": ("prices.md", text.encode())}
    )
    job = mesh_process.finished(client, sent.json()["job_id"])
    assert job["status"] == "succeeded", job
    for question in ("P04321", "What does P04321 cost?", "How much is P04321?"):
        body = {"query": question, "collections": [collection]}
        reply = client.post("/v1/query", json=body).raise_for_status().json()
        assert "Price: 617.29 EUR" in reply["answer"], (question, reply)
