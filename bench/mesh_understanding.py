"""What understanding of questions gains without a model, and what it costs; losing rows included.

Abbreviations are measured through two meshes over one folder, one of which leaves them out: SciFact
as it is, and its claims with one term each in the other form ("MSCs" for "mesenchymal stem cells"),
as the abstracts define it. Co-occurrence and feedback from the first hits are not part of the mesh;
they are measured over words alone, in memory.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import mesh_passages
import mesh_process
import related_words
from raglan.terms import terms
from raglan_cli import metrics
from raglan_gateway.understanding.cleaning import clean
from raglan_gateway.understanding.intent import intent_of
from raglan_gateway.understanding.reading import read
from raglan_gateway.understanding.small_talk import reply_to
from raglan_retriever.abbreviations import definitions
from report import Row

INTENTS = mesh_passages.ROOT / "tests" / "intents.jsonl"
SETS = ("scifact", "cranfield", "squad", "xquad_ar", "xquad_ru", "xquad_th", "xquad_tr")
_COLLECTION = "scifact"
_DEPTH = 30
_SHARE = 0.5
_LONGEST = 6
PASTED = (
    "\u201c{}\u201d", "> {}", "\x1b[1m{}\x1b[0m", "\u200b{}\u200b\ufeff", '"{}"', "\u202a{}\u202c",
)  # fmt: skip
"""Forms in which a question comes when it is pasted."""


def understanding() -> list[Row]:
    """All rows; starts meshes of its own."""
    return [*_words(), *_abbreviations(), *related_words.rows()]


def _words() -> Iterator[Row]:
    """Rows that need no mesh."""
    labelled = [json.loads(line) for line in INTENTS.read_text("utf-8").splitlines()]
    asked = [row["text"] for name in SETS for row in mesh_passages.questions(name)]
    asked += _docs_questions()
    talk = [row["text"] for row in labelled if row["intent"] == "chit-chat"]
    right = [intent_of(row["text"]) == row["intent"] for row in labelled]
    lookups = [intent_of(row["text"]) == "lookup" for row in mesh_passages.questions("squad")]
    pasted = [(form.format(text), text) for text in _docs_questions() for form in PASTED]
    took = sorted(_milliseconds(text) for text in asked)
    yield Row("questions of all sets", "", len(asked))
    yield Row(
        "taken for small talk", "", sum(bool(reply_to(clean(each))) for each in asked), "<= 0"
    )
    yield Row(
        "unchanged by cleaning", "share", _mean(clean(each) == each.strip() for each in asked)
    )
    yield Row("small talk recognised", "share", _mean([bool(reply_to(each)) for each in talk]))
    yield Row(
        "pasted questions cleaned", "share", _mean([clean(a) == b for a, b in pasted]), ">= 1"
    )
    yield Row("intent, own set of questions", "share", _mean(right), note=f"{len(right)} questions")
    yield Row("SQuAD questions read as lookups", "share", _mean(lookups))
    yield Row("cleaning, reading and small talk, p95", "ms", took[int(0.95 * len(took))], "<= 1")


def _milliseconds(text: str) -> float:
    """Processor time that understanding of one question takes."""
    begun = time.thread_time()
    cleaned = clean(text)
    reply_to(cleaned)
    read(cleaned)
    return (time.thread_time() - begun) * 1e3


def _docs_questions() -> list[str]:
    path = mesh_passages.DATA / "docs_qa" / "questions.jsonl"
    return [json.loads(line)["question"] for line in path.read_text("utf-8").splitlines()]


def _abbreviations() -> Iterator[Row]:
    """SciFact with and without the other forms of abbreviations, at the gateway's defaults."""
    claims = {row["_id"]: row["text"] for row in mesh_passages.questions("scifact")}
    swapped = _swapped(claims, _corpus())
    found: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, on in (("with", "true"), ("without", "false")):
            data = Path(folder) / "mesh"
            with (
                mesh_process.running(data, RAGLAN_RETRIEVER_ABBREVIATIONS=on) as mesh,
                mesh.client() as client,
            ):
                if on == "true":
                    _fill(client)
                found[name] = {
                    "as they are": _figures(client, claims),
                    "in the other form": _figures(client, swapped),
                }
    yield Row("SciFact claims with a term in the other form", "", len(swapped))
    for asked, figures in found["with"].items():
        for figure, value in figures.items():
            yield Row(
                f"SciFact, claims {asked}, {figure}",
                "",
                value,
                peer=found["without"][asked][figure],
                peer_name="without abbreviations",
            )


def _corpus() -> list[dict[str, str]]:
    path = mesh_passages.DATA / "scifact" / "corpus.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [
        {"id": row["_id"], "title": row["title"], "text": row["text"]}
        for row in rows
        if row["text"].strip()
    ]


def _fill(client: httpx.Client) -> None:
    client.post("/v1/collections", json={"name": _COLLECTION}).raise_for_status()
    documents = _corpus()
    for begin in range(0, len(documents), 1000):
        body = {"documents": documents[begin : begin + 1000]}
        reply = client.post(f"/v1/collections/{_COLLECTION}/documents", json=body)
        job = mesh_process.finished(client, reply.json()["job_id"], within_s=1200)
        assert job["status"] == "succeeded", job


def _figures(client: httpx.Client, asked: Mapping[str, str]) -> dict[str, float]:
    relevant = _relevant()
    found = {id_: _documents(client, text) for id_, text in asked.items() if id_ in relevant}
    measures: dict[str, Callable[[Sequence[str], Mapping[str, int]], float]] = {
        "nDCG@10": lambda ranked, judged: metrics.ndcg(ranked, judged, 10),
        "Recall@3": lambda ranked, judged: metrics.recall(ranked, judged, 3),
        "Recall@10": lambda ranked, judged: metrics.recall(ranked, judged, 10),
    }
    return {
        name: statistics.fmean(measure(ranked, relevant[id_]) for id_, ranked in found.items())
        for name, measure in measures.items()
    }


def _relevant() -> dict[str, dict[str, int]]:
    judged: dict[str, dict[str, int]] = defaultdict(dict)
    lines = (mesh_passages.DATA / "scifact" / "qrels" / "test.tsv").read_text().splitlines()[1:]
    for query, document, score in (line.split("\t") for line in lines):
        if int(score) > 0:
            judged[query][document] = int(score)
    return judged


def _documents(client: httpx.Client, query: str) -> list[str]:
    """The documents of the passages, best first; asked again where a stage fell back."""
    body = {"query": query, "collections": [_COLLECTION], "top_k": _DEPTH}
    for _ in range(20):
        content: dict[str, Any] = client.post("/v1/search", json=body).raise_for_status().json()
        if not content["degraded"]:
            return list(dict.fromkeys(each["document_id"] for each in content["passages"]))
    raise AssertionError(content["degraded"])


def _swapped(claims: Mapping[str, str], corpus: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The claims that have a defined abbreviation, or its long form, with the other form of it."""
    long_of: dict[str, Counter[str]] = defaultdict(Counter)
    short_of: dict[str, Counter[str]] = defaultdict(Counter)
    for document in corpus:
        for each in definitions(document["text"]):
            long_of[each.short][each.long] += 1
            short_of[" ".join(terms(each.long, "en"))][each.short] += 1
    changed = ((id_, _other_form(text, long_of, short_of)) for id_, text in claims.items())
    return {id_: text for id_, text in changed if text}


def _other_form(
    claim: str, long_of: Mapping[str, Counter[str]], short_of: Mapping[str, Counter[str]]
) -> str:
    """The claim with its first abbreviation written out, or its first long form abbreviated."""
    words = claim.split()
    for at, word in enumerate(words):
        bare = word.strip(".,;:()?")
        if counts := long_of.get(bare):
            ((long, count),) = counts.most_common(1)
            if count >= _SHARE * counts.total():
                return " ".join([*words[:at], word.replace(bare, long), *words[at + 1 :]])
    for start in range(len(words)):
        for end in range(min(len(words), start + _LONGEST), start + 1, -1):
            found = terms(" ".join(words[start:end]), "en")
            if len(found) > 1 and (shorts := short_of.get(" ".join(found))):
                ((short, _),) = shorts.most_common(1)
                return " ".join([*words[:start], short, *words[end:]])
    return ""


def _mean(values: Sequence[bool]) -> float:
    return statistics.fmean(values)
