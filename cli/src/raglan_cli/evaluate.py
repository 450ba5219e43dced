"""`raglan eval`: how well the mesh finds what a BEIR set says it should, and how fast."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import track
from rich.table import Table

from raglan_cli import beir, evalcollection, jobs, metrics, trec
from raglan_cli.ask import Mode, ModeOption, RerankOption, options
from raglan_cli.beir import Dataset, Question
from raglan_cli.client import (
    Gateway,
    JsonOption,
    UrlOption,
    check_name,
    documents_path,
    find_url,
)
from raglan_cli.failure import Failure, UsageFailure
from raglan_cli.ingest import bars
from raglan_cli.screen import err, out, print_json

DEPTH: Final = 100
"""Passages requested when documents are ranked: several may belong to one document."""

RANKED: Final = 50
"""Documents that the figures need in order."""

_MOST_SEARCHES: Final = 8
"""For one question, to reach that many documents."""

MAX_SENTENCES: Final = 3
_LATENCY_QUERIES: Final = 200
_WARM_UP: Final = 3

Measured = tuple[dict[str, Any], dict[str, list[float]]]
"""Figures, and the measurements behind them by name, in the order of the questions."""


def evaluate(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="corpus.jsonl, queries.jsonl, qrels/test.tsv.")
    ],
    collection: Annotated[
        str | None,
        typer.Option(
            "--collection",
            "-c",
            metavar="NAME",
            callback=check_name,
            help="A collection to make, or one that holds this corpus only. "
            "Default: eval-<folder>-<hash of the corpus>.",
        ),
    ] = None,
    queries: Annotated[
        int | None, typer.Option(min=1, help="Only the first N judged queries.")
    ] = None,
    mode: ModeOption = None,
    rerank: RerankOption = None,
    answers: Annotated[
        bool, typer.Option("--answers", help="Also ask /v1/query and look for the known answers.")
    ] = False,
    keep: Annotated[
        bool,
        typer.Option("--keep/--no-keep", help="Keep the collection for the next evaluation."),
    ] = True,
    run: Annotated[
        Path | None,
        typer.Option("--run", help="Write the ranked documents as a TREC run file, for trec_eval."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds a request may take.")] = 30,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Measure retrieval on a BEIR folder: nDCG@10, Recall@3/10/50, MRR@10, latency p50/p95.

    The corpus goes into a collection of its own, once. Latency is that of /v1/search as a user
    calls it, one request after the other; documents are then ranked by their best passage. With
    --json the report has the measurements behind its figures.

    Examples:

      raglan eval data/scifact

      raglan eval data/squad --queries 1000 --answers --json

      raglan eval data/scifact --no-keep --run scifact.run
    """
    dataset = beir.load(folder, limit=queries)
    if answers and not any(question.answers for question in dataset.questions):
        raise UsageFailure(f"--answers: the queries of {folder} carry no metadata.answers.")
    if run is not None:
        ids = [question.id for question in dataset.questions]
        trec.require_writable(run, [*ids, *(document["id"] for document in dataset.corpus())])
    with (
        Gateway(find_url(url)) as gateway,
        evalcollection.of_its_own(gateway, dataset, collection, keep=keep) as name,
    ):
        asked = RequestOptions(name, mode, rerank, timeout_ms=int(timeout * 1000))
        ingested = fill(gateway, dataset, name, quiet=json)
        report: dict[str, Any] = {"dataset": str(folder), "collection": name}
        report |= {"documents": dataset.documents, "empty_documents": dataset.empty}
        report |= {"queries": len(dataset.questions), "mode": (mode or Mode.HYBRID).value}
        report |= {"rerank": rerank is not False, "ingest": ingested}
        latency = measure_latency(gateway, dataset.questions, asked, quiet=json)
        ranked = rank(gateway, dataset.questions, asked, quiet=json)
        report["search"], samples = search_figures(ranked, latency)
        if answers:
            report["answers"], more = measure_answers(gateway, dataset.questions, asked, quiet=json)
            samples |= more
    if json:
        print_json(report | {"corpus": dataset.digest, "samples": samples})
    else:
        _show(report)
    if run is not None:
        trec.write(run, {each.question.id: each.documents for each in ranked})


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """Parameters common to all requests of an evaluation."""

    collection: str
    mode: Mode | None
    rerank: bool | None
    timeout_ms: int

    def body(self, question: Question, top_k: int | None = None) -> dict[str, Any]:
        """The request; with the gateway's `top_k` unless one is given."""
        chosen = options(
            question.text, self.collection, top_k=top_k, mode=self.mode, rerank=self.rerank
        )
        return chosen | {"timeout_ms": self.timeout_ms}


@dataclass(slots=True)
class Timed:
    """Replies of one kind: how long each took, and which stages fell back."""

    milliseconds: list[float] = field(default_factory=list)
    degraded: Counter[str] = field(default_factory=Counter)

    def post(self, gateway: Gateway, path: str, body: Mapping[str, Any]) -> Any:
        """Make one call and take note of it."""
        began = time.perf_counter()
        reply = gateway.call("POST", path, json=body)
        self.milliseconds.append((time.perf_counter() - began) * 1e3)
        self.degraded.update({note["stage"] for note in reply.get("degraded") or ()})
        return reply

    def figures(self) -> dict[str, Any]:
        """p50 and p95 in milliseconds, and by stage how many replies were degraded."""
        return {
            "latency_p50_ms": round(metrics.percentile(self.milliseconds, 0.50), 2),
            "latency_p95_ms": round(metrics.percentile(self.milliseconds, 0.95), 2),
            "latency_queries": len(self.milliseconds),
            "degraded": dict(self.degraded),
        }


def fill(gateway: Gateway, dataset: Dataset, name: str, *, quiet: bool) -> dict[str, Any]:
    """Bring the corpus into collection `name`, unless it holds all of it already.

    Raises:
        Failure: no document got in; the message holds the first reason.
    """
    held = gateway.collection(name)
    if held and held.get("documents") == dataset.documents:
        return {"reused": True, "seconds": 0.0, "chunks": held.get("chunks"), "failed": []}
    gateway.create_collection(name)
    began = time.monotonic()
    job_ids = []
    with bars(quiet=quiet) as shown:
        for _, body in dataset.requests():
            headers = {"Content-Type": "application/json"}
            reply = gateway.call_patiently(
                "POST", documents_path(name), content=body, headers=headers
            )
            job_ids.append(str(reply["job_id"]))
        outcome = jobs.follow(gateway, job_ids, shown.show_stages)
    seconds = round(time.monotonic() - began, 2)
    held = gateway.collection(name)
    if not held or not held.get("documents"):
        reason = outcome.failed[0]["reason"] if outcome.failed else "the collection is empty."
        raise Failure(f"No document of {dataset.folder} got into {name}: {reason}")
    return {
        "reused": False,
        "seconds": seconds,
        "chunks": held.get("chunks"),
        "failed": outcome.failed,
    }


def measure_latency(
    gateway: Gateway, questions: Sequence[Question], asked: RequestOptions, *, quiet: bool
) -> Timed:
    """Search as a user does, with queries that no cache has seen."""
    for question in questions[:_WARM_UP]:
        warm = Question(question.id, f"{question.text} ?", question.grades, ())
        gateway.call_patiently("POST", "/v1/search", json=asked.body(warm))
    timed = Timed()
    for question in _track(questions[:_LATENCY_QUERIES], "latency", quiet=quiet):
        timed.post(gateway, "/v1/search", asked.body(question))
    return timed


@dataclass(frozen=True, slots=True)
class Ranking:
    """The documents that were found for a question."""

    question: Question
    documents: list[str]
    """Ids, the best first."""
    truncated: bool
    """The passages that were looked at belong to fewer than `RANKED` documents, and there are more
    passages."""


def rank(
    gateway: Gateway, questions: Sequence[Question], asked: RequestOptions, *, quiet: bool
) -> list[Ranking]:
    """Rank documents for each question, by their best passage."""
    return [
        rank_documents(gateway, question, asked)
        for question in _track(questions, "quality", quiet=quiet)
    ]


def rank_documents(gateway: Gateway, question: Question, asked: RequestOptions) -> Ranking:
    """Search again without the documents found so far while there are too few of them.

    One long document would otherwise take the places of all others.
    """
    found: list[str] = []
    for _ in range(_MOST_SEARCHES):
        body = asked.body(question, top_k=DEPTH) | _without(found)
        passages = gateway.call_patiently("POST", "/v1/search", json=body)["passages"]
        more = [document for document in documents_of(passages) if document not in found]
        found += more
        copies = sum(passage.get("duplicates") or 0 for passage in passages)
        is_end = len(passages) + copies < DEPTH
        if is_end or len(found) >= RANKED:
            return Ranking(question, found, truncated=False)
        if not more:
            break
    return Ranking(question, found, truncated=True)


def _without(document_ids: Sequence[str]) -> dict[str, Any]:
    if not document_ids:
        return {}
    return {"filter": {"not": {"in": {"field": beir.ID_FIELD, "values": list(document_ids)}}}}


def search_figures(ranked: Sequence[Ranking], latency: Timed) -> Measured:
    """Quality of the rankings, and latency."""
    found = quality([(each.documents, each.question.grades) for each in ranked])
    figures: dict[str, Any] = {
        name: round(metrics.mean(values), 4) for name, values in found.items()
    }
    figures["truncated_queries"] = sum(each.truncated for each in ranked)
    samples = found | {"search_ms": latency.milliseconds}
    return figures | latency.figures(), samples


def documents_of(passages: Iterable[Mapping[str, Any]]) -> list[str]:
    """Document ids in the order of their best passage."""
    return list(dict.fromkeys(passage["document_id"] for passage in passages))


def quality(
    ranked: Sequence[tuple[Sequence[str], metrics.Grades]],
) -> dict[str, list[float]]:
    """Of each (ranking, judgements) pair."""
    return {
        "ndcg_at_10": [metrics.ndcg(r, g, 10) for r, g in ranked],
        "recall_at_3": [metrics.recall(r, g, 3) for r, g in ranked],
        "recall_at_10": [metrics.recall(r, g, 10) for r, g in ranked],
        "recall_at_50": [metrics.recall(r, g, 50) for r, g in ranked],
        "mrr_at_10": [metrics.reciprocal_rank(r, g, 10) for r, g in ranked],
    }


def measure_answers(
    gateway: Gateway, questions: Sequence[Question], asked: RequestOptions, *, quiet: bool
) -> Measured:
    """Measure the share of answers that contain a known answer, and their length."""
    timed = Timed()
    contained: list[float] = []
    long: list[float] = []
    cited: list[float] = []
    known = [question for question in questions if question.answers]
    for question in _track(known, "answers", quiet=quiet):
        reply = timed.post(gateway, "/v1/query", asked.body(question))
        contained.append(metrics.contains_any(reply["answer"], question.answers))
        long.append(metrics.sentence_count(reply["answer"]) > MAX_SENTENCES)
        cited.append(bool(reply["citations"]))
    figures = {
        "queries": len(known),
        "contains_answer": round(metrics.mean(contained), 4),
        "over_three_sentences": round(metrics.mean(long), 4),
        "with_citations": round(metrics.mean(cited), 4),
        **timed.figures(),
    }
    return figures, {
        "contains_answer": contained,
        "over_three_sentences": long,
        "with_citations": cited,
        "query_ms": timed.milliseconds,
    }


def _track(questions: Sequence[Question], what: str, *, quiet: bool) -> Iterable[Question]:
    hidden = quiet or not err.is_terminal
    return track(questions, what, console=err, transient=True, disable=hidden)


def _show(report: Mapping[str, Any]) -> None:
    ingest = report["ingest"]
    brought = "already there" if ingest["reused"] else f"ingested in {ingest['seconds']:.1f} s"
    out.print(
        f"{report['dataset']}: {report['documents']} documents ({ingest['chunks']} "
        f"chunks, {brought}), {report['queries']} queries, {report['mode']}, "
        f"{'with' if report['rerank'] else 'without'} reranking"
    )
    if ingest["failed"]:
        first = ingest["failed"][0]
        err.print(
            f"{len(ingest['failed'])} documents failed, "
            f"e.g. {first['document']}: {first['reason']}",
            style="red",
            markup=False,
        )
    if truncated := report["search"]["truncated_queries"]:
        err.print(
            f"For {truncated} of {report['queries']} queries the passages that were looked at "
            f"belong to fewer than {RANKED} documents, so that Recall@{RANKED} is too low.",
            style="yellow",
        )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("figure")
    table.add_column("value", justify="right")
    for group in ("search", "answers"):
        for name, value in report.get(group, {}).items():
            if name == "degraded":
                value = ", ".join(f"{stage} {n}" for stage, n in value.items()) or "none"
            shown = f"{value:.4f}" if isinstance(value, float) and "_ms" not in name else str(value)
            table.add_row(_label(name) if group == "search" else f"answers: {_label(name)}", shown)
    out.print(table)


def _label(name: str) -> str:
    """Format a metric's name: "recall_at_3" becomes "Recall@3"."""
    metric, at, depth = name.partition("_at_")
    names = {"ndcg": "nDCG", "recall": "Recall", "mrr": "MRR"}
    return f"{names[metric]}@{depth}" if at else name.replace("_", " ")
