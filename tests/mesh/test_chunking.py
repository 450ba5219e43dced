"""Chunking strategies of collections, through a whole mesh."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import log_corpus
import mesh_process
import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def raglan(mesh: mesh_process.Mesh) -> Run:
    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "raglan_cli", *map(str, words)],
            env=os.environ | {"RAGLAN_URL": mesh.url},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def preview(client: httpx.Client, name: str, text: str, **params: Any) -> httpx.Response:
    return client.post("/v1/chunks", files={"files": (name, text.encode())}, params=params)


def test_errors_of_an_hour_are_a_filter(client: httpx.Client, raglan: Run, tmp_path: Path) -> None:
    made = log_corpus.make("log4j", entries=2_000)
    file = tmp_path / "server.log"
    file.write_text(made.text)

    shown = raglan("chunks", file, "--strategy", "log", "--json")
    done = raglan("ingest", file, "-c", "errors", "--chunking", "log", "--json")
    assert (done.returncode, json.loads(done.stdout)["failed"]) == (0, [])
    assert json.loads(shown.stdout)["chunks"][0]["metadata"]["log"]["format"] == "iso"

    bounds = [
        {"in": {"field": "log.level", "values": ["error", "fatal"]}},
        {"range": {"field": "log.to", "gte": "2026-11-20T14:00:00Z"}},
        {"range": {"field": "log.from", "lt": "2026-11-20T15:00:00Z"}},
    ]
    body = {"query": "request failed", "collections": ["errors"], "top_k": 20,
            "filter": {"and": bounds}}  # fmt: skip
    passages = client.post("/v1/search", json=body).raise_for_status().json()["passages"]
    texts = [passage["text"] for passage in passages]
    assert texts
    assert all(line.startswith("2026-11-20 1") for text in texts for line in text.split("\n")[:1])
    assert all(" INFO " not in text and "2026-11-20 14" in text for text in texts)


def test_a_collection_keeps_its_strategy(client: httpx.Client, raglan: Run, tmp_path: Path) -> None:
    body = {"name": "kept", "chunking": {"strategy": "sentences", "max_chars": 200}}
    made = client.post("/v1/collections", json=body).raise_for_status().json()
    cut = {"strategy": "sentences", "max_chars": 200, "overlap_chars": 0}
    assert made["chunking"] == {**cut, "contextual": False}
    text = "Every release is signed. " * 30
    shown = preview(client, "a.txt", text, collection="kept").raise_for_status().json()
    assert (shown["chunking"], shown["chunk_count"] > 3) == (cut, True)
    file = tmp_path / "a.txt"
    file.write_text(text)
    other = raglan("ingest", file, "-c", "kept", "--chunking", "log")
    assert other.returncode != 0
    assert "exists with other settings" in other.stderr


def test_the_preview_prints_chunks_with_their_headings(raglan: Run, tmp_path: Path) -> None:
    file = tmp_path / "a.md"
    file.write_text("# Releases\n\nSigned.\n\n## When\n\nWeekly.\n")
    done = raglan("chunks", file)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1  0 to 37  Releases\n")
    assert "1 chunk of 38 characters (structure, at most 1,200 characters)." in done.stdout


def test_a_preview_of_code_names_what_does_not_parse(client: httpx.Client) -> None:
    found = preview(client, "a.py", "def f(:\n    pass\n", strategy="code").json()
    assert found["warnings"] == [
        "The file does not parse as python at line 1; the rest was cut by syntax."
    ]


@pytest.mark.parametrize(
    ("name", "text", "params", "status"),
    [
        ("a.txt", "text", {"strategy": "guess"}, 422),
        ("a.txt", "text", {"overlap_chars": 10}, 422),
        ("a.txt", "text", {"collection": "nowhere"}, 404),
        ("a.exe", "text", {}, 422),
        ("a.log", "\x00\x01\x02" * 1_000, {"strategy": "log"}, 422),
    ],
)
def test_what_cannot_be_previewed_is_refused(
    client: httpx.Client, name: str, text: str, params: dict[str, Any], status: int
) -> None:
    reply = preview(client, name, text, **params)
    assert (reply.status_code, "error" in reply.json()) == (status, True), reply.text


def test_a_preview_of_no_file_is_refused(client: httpx.Client) -> None:
    assert client.post("/v1/chunks", json={}).status_code == 415
    files = [("files", ("a.txt", b"a")), ("files", ("b.txt", b"b"))]
    assert client.post("/v1/chunks", files=files).status_code == 400
