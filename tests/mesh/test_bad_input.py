"""What users get wrong: a 4xx in the envelope, or a document that fails alone with a reason."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import httpx
import mesh_process
import pypdf
import pytest
from reportlab.pdfgen import canvas

GOOD = ("good.txt", b"This document is fine and stays findable.")


def pdf() -> bytes:
    buffer = io.BytesIO()
    page = canvas.Canvas(buffer)
    page.drawString(72, 720, "Secret plans.")
    page.save()
    return buffer.getvalue()


def encrypted_pdf() -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf()))
    writer.encrypt("password", algorithm="AES-256")
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


def zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", b"\0" * 600_000_000)
    return buffer.getvalue()


FAILS_ALONE: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "empty": ("empty.txt", lambda: b"", "empty"),
    "blank": ("blank.txt", lambda: b" \n\t\n", "empty"),
    "binary": ("noise.txt", lambda: bytes(range(256)) * 40, "text"),
    "encrypted": ("locked.pdf", encrypted_pdf, "encrypted"),
    "broken pdf": ("broken.pdf", lambda: pdf()[:300], "PDF"),
    "not a pdf": ("fake.pdf", lambda: b"hello", "PDF"),
    "zip bomb": ("bomb.docx", zip_bomb, "unpack"),
    "broken docx": ("broken.docx", lambda: b"PK\x03\x04nonsense", "Word"),
    "broken json": ("broken.json", lambda: b'{"a": ', "JSON"),
    "unknown type": ("song.mp3", lambda: b"ID3\x04\0\0\0", "mp3"),
    "null byte": ("null.txt", lambda: b"before\0after", "null"),
}


@pytest.mark.parametrize("case", FAILS_ALONE)
def test_a_document_that_cannot_be_read_fails_alone_and_says_why(
    client: httpx.Client, collection: str, case: str
) -> None:
    name, make, reason = FAILS_ALONE[case]
    files = [("files", (name, make())), ("files", GOOD)]
    sent = client.post(f"/v1/collections/{collection}/documents", files=files)
    assert sent.status_code == 202, sent.text
    job = mesh_process.finished(client, sent.json()["job_id"])
    assert job["status"] == "partial", job
    (error,) = job["errors"]
    assert error["document_id"] == name
    assert reason.lower() in error["message"].lower()
    assert "Traceback" not in error["message"]
    assert error["message"].endswith(".")
    found = client.post("/v1/search", json={"query": "findable", "collections": [collection]})
    assert [p["document_id"] for p in found.json()["passages"]] == ["good.txt"]


@pytest.mark.parametrize(
    "text",
    [
        "第一章。機械学習は計算機に学ばせる。",
        "الطقس جميل اليوم في المدينة.",
        "Добрый день, мир.",
        "🚀 🌍",
    ],
)
def test_text_in_any_script_is_kept_and_found(
    client: httpx.Client, collection: str, text: str
) -> None:
    job = mesh_process.ingest(client, collection, [{"id": "d", "text": text}])
    assert job["status"] == "succeeded", job
    assert client.get(f"/v1/collections/{collection}/documents/d").json()["text"] == text
    found = client.post("/v1/search", json={"query": text, "collections": [collection]}).json()
    assert [p["document_id"] for p in found["passages"]] == ["d"]
    assert client.post("/v1/query", json={"query": text, "collections": [collection]}).is_success


def test_two_documents_with_one_id_are_refused_before_anything_is_stored(
    client: httpx.Client, collection: str
) -> None:
    documents = [{"id": "twin", "text": "one"}, {"id": "twin", "text": "two"}]
    reply = client.post(f"/v1/collections/{collection}/documents", json={"documents": documents})
    assert reply.status_code == 422
    assert "twin" in reply.json()["error"]["message"]
    assert client.get(f"/v1/collections/{collection}/documents").json()["documents"] == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/query", {"query": "a", "collections": ["missing"]}),
        ("POST", "/v1/search", {"query": "a", "collections": ["missing"]}),
        ("GET", "/v1/collections/missing", None),
        ("DELETE", "/v1/collections/missing", None),
        ("GET", "/v1/collections/missing/documents", None),
        ("GET", "/v1/collections/missing/documents/x", None),
        ("DELETE", "/v1/collections/missing/documents/x", None),
        ("POST", "/v1/collections/missing/documents", {"documents": [{"id": "a", "text": "b"}]}),
        ("GET", "/v1/jobs/missing", None),
        ("POST", "/v1/jobs/missing/cancel", None),
        ("POST", "/v1/jobs/missing/retry", None),
        ("GET", "/v1/jobs/missing/events", None),
    ],
)
def test_what_does_not_exist_is_404_by_name(
    client: httpx.Client, method: str, path: str, body: dict[str, object] | None
) -> None:
    reply = client.request(method, path, json=body)
    assert reply.status_code == 404, reply.text
    error = reply.json()["error"]
    assert error["code"] == "NOT_FOUND"
    assert "missing" in error["message"] or "x" in error["message"]


def test_a_collection_for_another_model_is_refused_with_both_names(client: httpx.Client) -> None:
    reply = client.post("/v1/collections", json={"name": "other", "embedder": "some/other-model"})
    assert reply.status_code == 409
    message = reply.json()["error"]["message"]
    assert "some/other-model" in message
    assert "all-MiniLM-L6-v2" in message


def test_one_document_over_the_limit_is_refused_naming_it(
    client: httpx.Client, collection: str
) -> None:
    files = {"files": ("big.txt", b"word " * 14_000_000)}
    reply = client.post(f"/v1/collections/{collection}/documents", files=files)
    assert reply.status_code == 413
    assert "RAGLAN_INGESTER_MAX_DOCUMENT_BYTES" in reply.json()["error"]["message"]
    assert client.get(f"/v1/collections/{collection}/documents").json()["documents"] == []


def test_an_upload_of_200_mb_is_refused(client: httpx.Client, collection: str) -> None:
    def body() -> object:
        yield b'{"documents":['
        for number in range(200):
            text = b"a" * 1_000_000
            yield b'%s{"id":"%d","text":"%s"}' % (b"," if number else b"", number, text)
        yield b"]}"

    try:
        reply = client.post(
            f"/v1/collections/{collection}/documents",
            content=body(),  # type: ignore[arg-type]
            headers={"content-type": "application/json"},
        )
    except (httpx.WriteError, httpx.ReadError) as error:  # refused while it was still being sent
        pytest.fail(f"the connection was cut without an answer: {error!r}")
    assert reply.status_code == 413
    assert reply.json()["error"]["type"] == "payload_too_large"
