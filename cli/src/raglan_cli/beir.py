"""A BEIR folder: corpus.jsonl, queries.jsonl, qrels/test.tsv."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from raglan_cli.failure import UsageFailure
from raglan_cli.metrics import Grades

MAX_REQUEST_DOCUMENTS: Final = 2_000
MAX_REQUEST_BYTES: Final = 16 * 1024 * 1024
ID_FIELD: Final = "eval_document_id"
"""Metadata field with a document's id, by which searches can leave documents out."""

_NAME_LIMIT: Final = 64
"""Longest collection name."""


@dataclass(frozen=True, slots=True)
class Question:
    """A query with its judgements."""

    id: str
    text: str
    grades: Grades
    answers: tuple[str, ...]
    """Strings of which an answer should contain one; empty where the set has none."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """An evaluation set. The corpus stays on disk and is streamed."""

    folder: Path
    questions: tuple[Question, ...]
    documents: int
    """Documents with a title or a text; those without are not sent."""
    empty: int
    digest: str
    """Of the corpus, 10 hex digits."""

    @property
    def collection(self) -> str:
        """eval-<folder>-<digest>: another corpus is another collection."""
        folder = re.sub(r"[^a-z0-9_-]+", "-", self.folder.resolve().name.lower())
        room = _NAME_LIMIT - len("eval--") - len(self.digest)
        return f"eval-{folder[:room]}-{self.digest}"

    def corpus(self) -> Iterator[dict[str, Any]]:
        """The documents as the gateway takes them."""
        return (document for document in _documents(self.folder) if document["text"])

    def requests(self) -> Iterator[tuple[int, bytes]]:
        """(documents, body) of each request that together ingest the corpus."""
        return _bodies(json.dumps(document).encode() for document in self.corpus())


def load(folder: Path, *, limit: int | None = None) -> Dataset:
    """Read queries and judgements, and count the corpus.

    Args:
        folder: holds corpus.jsonl, queries.jsonl and qrels/test.tsv.
        limit: the first so many judged queries, in the order of queries.jsonl.

    Raises:
        UsageFailure: a file is missing or not what it should be.
    """
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        if not (folder / name).is_file():
            raise UsageFailure(f"{folder} is not a BEIR folder: {folder / name} is missing.")
    grades = _grades(folder / "qrels" / "test.tsv")
    questions = [
        Question(
            id=row["_id"],
            text=row["text"],
            grades=grades[row["_id"]],
            answers=tuple((row.get("metadata") or {}).get("answers") or ()),
        )
        for row in _rows(folder / "queries.jsonl", ("_id", "text"))
        if any(grade > 0 for grade in grades.get(row["_id"], {}).values())
    ][:limit]
    if not questions:
        raise UsageFailure(f"{folder}: no query of queries.jsonl is judged in qrels/test.tsv.")
    filled = [bool(document["text"]) for document in _documents(folder)]
    with (folder / "corpus.jsonl").open("rb") as corpus:
        digest = hashlib.file_digest(corpus, "sha256").hexdigest()[:10]
    return Dataset(folder, tuple(questions), sum(filled), filled.count(False), digest)


def _documents(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield documents in the gateway's form. The title is the text of one that has none."""
    for row in _rows(folder / "corpus.jsonl", ("_id", "text")):
        title = row.get("title") or ""
        yield {
            "id": row["_id"],
            "title": title,
            "text": row["text"] if row["text"].strip() else title.strip(),
            "metadata": (row.get("metadata") or {}) | {ID_FIELD: row["_id"]},
        }


def _bodies(documents: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    batch: list[bytes] = []
    size = 0
    for document in documents:
        full = len(batch) == MAX_REQUEST_DOCUMENTS or size + len(document) > MAX_REQUEST_BYTES
        if batch and full:
            yield len(batch), _body(batch)
            batch, size = [], 0
        batch.append(document)
        size += len(document) + 1
    if batch:
        yield len(batch), _body(batch)


def _body(documents: list[bytes]) -> bytes:
    return b'{"documents":[' + b",".join(documents) + b"]}"


def _rows(path: Path, needed: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                raise UsageFailure(f"{path}, line {number}: this is not JSON.") from None
            if not isinstance(row, dict) or not all(isinstance(row.get(n), str) for n in needed):
                raise UsageFailure(
                    f"{path}, line {number}: an object with the strings {', '.join(needed)} "
                    "is expected."
                )
            yield row


def _grades(path: Path) -> dict[str, dict[str, int]]:
    grades: dict[str, dict[str, int]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.reader(file, delimiter="\t"), 1):
            if number == 1 and row[-1:] == ["score"]:
                continue
            try:
                query, document, score = row
                grades.setdefault(query, {})[document] = int(score)
            except ValueError:
                raise UsageFailure(
                    f"{path}, line {number}: query-id, corpus-id and a whole score are expected, "
                    "with tabs between."
                ) from None
    return grades
