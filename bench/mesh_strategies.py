"""Second tries without a model, and fusion with search texts that a stand-in for a model writes.

The stand-in has its texts from a table, so the figures say what fusion makes of perfect and of
wrong texts. They say nothing about the quality of any model.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import mesh_passages
import mesh_process
from raglan.deadline import Deadline
from raglan.terms import is_stop_word
from raglan.v1 import generator_pb2, retriever_pb2
from raglan_cli import metrics
from raglan_gateway.mesh import STUBS, Mesh
from raglan_gateway.pipeline import Budgets, Pipeline
from raglan_gateway.query import Query
from raglan_gateway.settings import GatewaySettings
from raglan_gateway.strategies.strategy import Strategy
from report import Row

_SQUAD: Final = 1000
_WITHOUT_GOLD: Final = 300
_SEARCHED: Final = 100
_TOGETHER: Final = 4
_COLLECTION: Final = "strategies"
_DOCS: Final = "strategies-docs"
_BELOW: Final = 0.5
_TIME_S: Final = 60.0


def strategies(mesh: mesh_process.Mesh) -> list[Row]:
    """Second tries of the extractive generator, then fusion."""
    with mesh.client() as client:
        mesh_passages.fill(client, _COLLECTION)
        mesh_passages.fill_docs(client, _DOCS)
        rows = list(_second_tries(client))
    return [*rows, *asyncio.run(_fusion(mesh))]


def _second_tries(client: httpx.Client) -> Iterator[Row]:
    """Answers that are right and wrong, with one try and with a second one by words."""
    squad = mesh_passages.questions("squad")
    golden = mesh_passages.gold()
    docs = _lines(mesh_passages.DATA / "docs_qa" / "questions.jsonl")
    other = [*mesh_passages.questions("scifact"), *mesh_passages.questions("cranfield")][1::2]
    sets: dict[str, list[tuple[dict[str, Any], list[str]]]] = {
        "SQuAD": [
            (_body(_COLLECTION, r["text"]), r["metadata"]["answers"]) for r in squad[:_SQUAD]
        ],
        "docs_qa": [
            (_body(_DOCS, r["question"]), r["gold"]) for r in docs if r["kind"] != "unanswerable"
        ],
        "SQuAD without the document": [
            (_body(_COLLECTION, r["text"], mesh_passages.without(golden[r["_id"]])), [])
            for r in squad[:_WITHOUT_GOLD]
        ],
        "another subject": [(_body(_COLLECTION, r["text"]), []) for r in other],
        "docs_qa, unanswerable": [
            (_body(_DOCS, r["question"]), []) for r in docs if r["kind"] == "unanswerable"
        ],
    }
    for name, asked in sets.items():
        first = [_ask(client, body) for body, _ in asked]
        golds = [gold for _, gold in asked]
        base = _good(first, golds)
        what = "right" if any(golds) else "abstains"
        yield Row(f"{name}: {what}, one try", "share", base)
        for below in (0.0, _BELOW):
            poor = [at for at, r in enumerate(first) if r["abstained"] or r["confidence"] < below]
            yield Row(f"{name}: second tries below {below:g}", "share", len(poor) / len(asked))
            replies = list(first)
            for at in poor:
                body = asked[at][0] | {"second_try": "lexical", "second_try_below": below}
                replies[at] = _ask(client, body)
            yield Row(
                f"{name}: {what}, lexical below {below:g}",
                "share",
                _good(replies, golds),
                peer=base,
                peer_name="one try",
            )


def _good(replies: Sequence[dict[str, Any]], golds: Sequence[list[str]]) -> float:
    """Share of replies that hold an answer string, or abstain where there is none."""
    return statistics.fmean(
        metrics.contains_any(reply["answer"], gold) if gold else reply["abstained"]
        for reply, gold in zip(replies, golds, strict=True)
    )


class _TableMesh(Mesh):
    """The mesh, with a table in the place of the model that writes search texts."""

    texts: dict[str, list[str]]

    async def rewrite(
        self, request: generator_pb2.RewriteRequest, *, generator: str, deadline: Deadline
    ) -> generator_pb2.RewriteResponse:
        """Return the texts of the question."""
        return generator_pb2.RewriteResponse(texts=self.texts[request.question])


async def _fusion(running: mesh_process.Mesh) -> list[Row]:
    """MRR@10 of searches over SQuAD, by the texts that are searched beside the question.

    A vague question has every second word of its subject left out; its perfect rewrite is the
    whole one.
    """
    addresses = {each["service"]: each["address"] for each in running.services()}
    mesh = _TableMesh(GatewaySettings(**{f"{name}_address": addresses[name] for name in STUBS}))
    budgets = Budgets(embed_s=10, retrieve_s=10, rerank_s=10, first_token_s=10, cite_s=10)
    pipeline = Pipeline(mesh, budgets, rerank_candidates=GatewaySettings().rerank_candidates)
    golden = mesh_passages.gold()
    asked = mesh_passages.questions("squad")[:_SEARCHED]
    rows = []
    for kind, shown in (("whole", str), ("vague", _vague)):
        whole = {shown(row["text"]): row["text"] for row in asked}
        wanted = {shown(row["text"]): golden[row["_id"]] for row in asked}
        plain = await _mrr(pipeline, wanted, Strategy.NONE)
        rows.append(Row(f"{kind} questions: MRR@10, alone", "", plain))
        for name, (strategy, write) in _forms(asked, golden, whole).items():
            mesh.texts = {each: write(each) for each in wanted}
            found = await _mrr(pipeline, wanted, strategy)
            what = f"{kind} questions: MRR@10, {name}"
            rows.append(Row(what, "", found, peer=plain, peer_name="alone"))
    await mesh.close()
    return rows


Write = Callable[[str], list[str]]


def _forms(
    asked: Sequence[dict[str, Any]], golden: dict[str, str], whole: dict[str, str]
) -> dict[str, tuple[Strategy, Write]]:
    """What the stand-in writes for a question, by name."""
    chosen = random.Random(15)
    texts = {row["_id"]: row["text"] for row in _lines(mesh_passages.DATA / "squad/corpus.jsonl")}
    answers = {
        row["text"]: _sentence(texts[golden[row["_id"]]], row["metadata"]["answers"])
        for row in asked
    }
    known = [row["text"] for row in asked]
    others = {
        question: chosen.choice([each for each in known if each != text])
        for question, text in whole.items()
    }
    return {
        "rewrite, perfect": (Strategy.REWRITE, lambda q: [_other_form(whole[q])]),
        "rewrite, wrong": (Strategy.REWRITE, lambda q: [others[q]]),
        "multi_query, one of three perfect": (
            Strategy.MULTI_QUERY,
            lambda q: [others[q], _other_form(whole[q]), answers[others[q]]],
        ),
        "multi_query, three wrong": (
            Strategy.MULTI_QUERY,
            lambda q: [others[q], answers[others[q]], f"why {others[q]}"],
        ),
        "hyde, perfect": (Strategy.HYDE, lambda q: [answers[whole[q]]]),
        "hyde, wrong": (Strategy.HYDE, lambda q: [answers[others[q]]]),
    }


def _vague(question: str) -> str:
    words, subject = [], 0
    for word in question.split():
        is_subject = not is_stop_word(word.strip("?,.").casefold(), "en")
        subject += is_subject
        if not is_subject or subject % 2:
            words.append(word)
    return " ".join(words)


def _other_form(question: str) -> str:
    """The question with other marks: the same text would count as a repetition."""
    return f"{question.rstrip(' ?')}."


def _sentence(text: str, answers: Sequence[str]) -> str:
    """The sentence of `text` that holds an answer."""
    sentences = text.replace("? ", ". ").split(". ")
    return next((s for s in sentences if any(a in s for a in answers)), sentences[0])


async def _mrr(pipeline: Pipeline, wanted: dict[str, str], strategy: Strategy) -> float:
    """Mean reciprocal rank of the right document among the first ten, by question."""
    free = asyncio.Semaphore(_TOGETHER)

    async def one(question: str, document: str) -> float:
        async with free:
            return await _reciprocal_rank(pipeline, question, document, strategy)

    return statistics.fmean(await asyncio.gather(*(one(*each) for each in wanted.items())))


async def _reciprocal_rank(
    pipeline: Pipeline, question: str, document: str, strategy: Strategy
) -> float:
    query = Query(
        text=question,
        collections=(_COLLECTION,),
        top_k=10,
        mode=retriever_pb2.SEARCH_MODE_HYBRID,
        rerank=True,
        strategy=strategy,
    )
    for _ in range(8):
        run = await pipeline.search(query, Deadline.after(_TIME_S))
        if not run.degraded:
            break
    else:
        raise AssertionError(run.degraded)
    found = [each.document_id for each in run.passages]
    return 1 / (1 + found.index(document)) if document in found else 0.0


def _body(collection: str, query: str, filter_: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"query": query, "collections": [collection], "filter": filter_}


def _ask(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    return _post(client, "/v1/query", body)


def _post(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The reply; asked again where a busy machine let a stage fall back."""
    for _ in range(8):
        reply = client.post(path, json={"timeout_ms": 60_000, **body}).raise_for_status()
        found: dict[str, Any] = reply.json()
        if not found["degraded"]:
            return found
    raise AssertionError(found["degraded"])


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
