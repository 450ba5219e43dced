"""The manifest of a bulk ingestion: what a further run need not do again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from raglan.errors import Conflict, InvalidInput
from raglan_ingester.bulk.manifest import FAILED, INDEXED, Manifest, Record

HEAD = {"source": "/srv/docs", "collection": "docs", "settings": "1"}


def record(name: str, state: str = INDEXED, version: str = "1") -> Record:
    return Record(name, version, "ab", 3, state, "It is broken." if state == FAILED else "")


def written(path: Path, *records: Record, **head: str) -> None:
    manifest = Manifest(path, HEAD | head)
    for each in records:
        manifest.add(each.line())
    manifest.close()


def versions(path: Path, **head: str) -> dict[str, str]:
    manifest = Manifest(path, HEAD | head)
    manifest.close()
    return manifest.versions


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "manifest.jsonl"


def test_indexed_documents_are_known_by_their_last_version(path: Path) -> None:
    written(path, record("a"), record("b"), record("a", version="2"), record("c", FAILED))
    assert versions(path) == {"a": "2", "b": "1"}


def test_a_document_that_failed_later_is_done_again(path: Path) -> None:
    written(path, record("a"), record("a", FAILED))
    assert versions(path) == {}


def test_a_document_without_a_version_is_done_again(path: Path) -> None:
    written(path, record("a", version=""))
    assert versions(path) == {}


def test_a_line_that_a_crash_cut_short_is_not_counted(path: Path) -> None:
    written(path, record("a"))
    with path.open("a") as file:
        file.write(record("b").line()[:20])
    assert versions(path) == {"a": "1"}
    written(path, record("c"))
    assert versions(path) == {"a": "1", "c": "1"}


def test_other_settings_make_every_document_be_done_again(path: Path) -> None:
    written(path, record("a"))
    assert versions(path, settings="2") == {}


@pytest.mark.parametrize("head", [{"source": "/other"}, {"collection": "other"}])
def test_the_manifest_of_another_run_is_refused(path: Path, head: dict[str, str]) -> None:
    written(path, record("a"))
    text = path.read_text()
    with pytest.raises(InvalidInput, match="name another file"):
        versions(path, **head)
    assert path.read_text() == text


def test_a_file_that_is_no_manifest_is_refused(path: Path) -> None:
    path.write_text("[1]\n")
    with pytest.raises(InvalidInput, match="is not a manifest"):
        versions(path)


def test_one_run_writes_at_a_time(path: Path) -> None:
    manifest = Manifest(path, HEAD)
    with pytest.raises(Conflict, match="Another run writes"):
        Manifest(path, HEAD)
    manifest.close()


def test_a_line_is_json(path: Path) -> None:
    written(path, record("ä", FAILED))
    head, line = path.read_text().splitlines()
    assert json.loads(head)["source"] == "/srv/docs"
    assert json.loads(line) == {
        "document": "ä",
        "version": "1",
        "sha256": "ab",
        "chunks": 3,
        "state": "failed",
        "error": "It is broken.",
    }
