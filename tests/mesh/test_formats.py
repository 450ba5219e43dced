"""Every format that is taken in: found, answered from, and quoted exactly as it is stored."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import docx
import httpx
import mesh_process
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reportlab.pdfgen import canvas

FACT = "The lighthouse at Raglan Point was built in 1876 by Ada Whitcombe."
REST = "It stands on a cliff. The keeper lives next door. Ships pass every day."
QUESTION = "Who built the lighthouse at Raglan Point?"


def pdf() -> bytes:
    buffer = io.BytesIO()
    page = canvas.Canvas(buffer)
    page.drawString(72, 720, FACT)
    page.drawString(72, 700, REST)
    page.save()
    return buffer.getvalue()


def word() -> bytes:
    document = docx.Document()
    document.add_heading("Lighthouses", level=1)
    document.add_paragraph(FACT)
    document.add_paragraph(REST)
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


FORMATS: dict[str, Callable[[], bytes]] = {
    "note.txt": lambda: f"{FACT} {REST}\n".encode(),
    "utf16.txt": lambda: f"{FACT} {REST}\n".encode("utf-16"),
    "note.md": lambda: f"# Lighthouses\r\n\r\n{FACT}\r\n\r\n{REST}\r\n".encode(),
    "note.html": lambda: (
        f"<html><head><title>L</title><script>x()</script></head>"
        f"<body><h1>Lighthouses</h1><p>{FACT}</p><p>{REST} &amp; more</p></body></html>"
    ).encode(),
    "note.pdf": pdf,
    "note.docx": word,
    "note.json": lambda: json.dumps({"title": "L", "facts": [FACT, REST]}).encode(),
    "note.jsonl": lambda: "\n".join(json.dumps({"text": t}) for t in (FACT, REST)).encode(),
    "note.csv": lambda: f'id,fact\n1,"{FACT}"\n2,"{REST}"\n'.encode(),
    "note.eml": lambda: f"Subject: Lighthouses\nFrom: a@a.test\n\n{FACT} {REST}\n".encode(),
    "note.rst": lambda: f"Lighthouses\n===========\n\n{FACT}\n\n{REST}\n".encode(),
    "note.org": lambda: f"* Lighthouses\n{FACT}\n\n{REST}\n".encode(),
    "note.adoc": lambda: f"== Lighthouses\n\n{FACT}\n\n{REST}\n".encode(),
    "note.rtf": lambda: f"{{\\rtf1 {FACT}\\par {REST}}}".encode(),
    "note.srt": lambda: f"1\n00:00:01,000 --> 00:00:05,000\n{FACT}\n".encode(),
    "note.ipynb": lambda: json.dumps(
        {"cells": [{"cell_type": "markdown", "source": f"{FACT}\n\n{REST}"}]}
    ).encode(),
    "note.py": lambda: f'"""{FACT}\n\n{REST}"""\n\ndef light() -> None:\n    pass\n'.encode(),
}


def check_citations(client: httpx.Client, collection: str, question: str) -> dict[str, object]:
    """Ask, and hold every citation and passage against the stored text."""
    body = {"query": question, "collections": [collection]}
    reply = client.post("/v1/query", json=body).json()
    for citation in reply["citations"]:
        path = f"/v1/collections/{collection}/documents/{citation['document_id']}"
        text = client.get(path).json()["text"]
        assert text[citation["start"] : citation["end"]] == citation["quote"]
        assert citation["quote"]
    return dict(reply)


@pytest.mark.parametrize("name", FORMATS)
def test_a_document_of_each_format_is_answered_from_and_quoted_exactly(
    client: httpx.Client, collection: str, name: str
) -> None:
    sent = client.post(
        f"/v1/collections/{collection}/documents", files={"files": (name, FORMATS[name]())}
    )
    job = mesh_process.finished(client, sent.json()["job_id"])
    assert job["status"] == "succeeded", job
    reply = check_citations(client, collection, QUESTION)
    assert "Ada Whitcombe" in str(reply["answer"])
    assert reply["citations"]


texts = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300
).filter(lambda text: any(c.isalnum() for c in text))


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(st.lists(texts, min_size=1, max_size=4), st.sampled_from(["txt", "md", "html", "jsonl"]))
def test_any_text_is_quoted_exactly(
    client: httpx.Client, collection: str, paragraphs: list[str], suffix: str
) -> None:
    body = "\n\n".join([*paragraphs, FACT])
    if suffix == "jsonl":
        body = "\n".join(json.dumps({"text": p}) for p in [*paragraphs, FACT])
    sent = client.post(
        f"/v1/collections/{collection}/documents",
        files={"files": (f"random.{suffix}", body.encode())},
    )
    job = mesh_process.finished(client, sent.json()["job_id"])
    assert job["status"] in {"succeeded", "failed"}, job
    if job["status"] == "succeeded":
        check_citations(client, collection, QUESTION)
        stored = client.get(f"/v1/collections/{collection}/documents/random.{suffix}").json()
        for chunk in stored["chunks"]:
            assert stored["text"][chunk["start"] : chunk["end"]] == chunk["text"]
