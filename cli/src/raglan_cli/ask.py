"""`raglan ask` and `raglan search`: one question to the mesh."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from raglan_cli import explained
from raglan_cli.answer_view import AnswerView
from raglan_cli.client import CollectionOption, Gateway, JsonOption, UrlOption, find_url
from raglan_cli.failure import Failure, UsageFailure
from raglan_cli.orientation import about_empty, naming_others
from raglan_cli.screen import err, one_line, out, print_json

_TIMINGS: Final = ("embed", "retrieve", "rerank", "first_token", "generate", "total")
"""Shown to a reader, in the order of the work; --json has those within each stage too."""

_PATH_CHARS: Final = 120
"""Longest path of headings; a list's lead-in may be the last of them."""


class Mode(StrEnum):
    """Legs of the search."""

    HYBRID = "hybrid"
    DENSE = "dense"
    LEXICAL = "lexical"


TopKOption = Annotated[
    int | None,
    typer.Option("--top-k", min=1, help="How many passages to use. Default: the gateway's."),
]
ModeOption = Annotated[Mode | None, typer.Option("--mode", help="Default: the gateway's, hybrid.")]
RerankOption = Annotated[
    bool | None, typer.Option("--rerank/--no-rerank", help="Default: the gateway's, with.")
]
MinScoreOption = Annotated[
    float | None,
    typer.Option(
        "--min-score", min=0, max=1, help="Least relevance of a passage, 0 to 1. Default: any."
    ),
]
AsOfOption = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="TIME",
        help="Search the versions of documents of this date or time, as 2026-11-28T12:00:00Z.",
    ),
]


def ask(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="The question, in quotes.")],
    collection: CollectionOption = "default",
    top_k: TopKOption = None,
    mode: ModeOption = None,
    rerank: RerankOption = None,
    min_score: MinScoreOption = None,
    as_of: AsOfOption = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Show then where the time went, and what reranking did.")
    ] = False,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Answer a question from a collection's documents, with citations.

    Examples:

      raglan ask "How do I pin the reranker to the second GPU?" -c handbook

      raglan ask "Who signs off a release?" --json | jq .citations

      raglan ask "Who signs off a release?" --trace
    """
    chosen = options(
        question,
        collection,
        top_k=top_k,
        mode=mode,
        rerank=rerank,
        min_score=min_score,
        as_of=as_of,
    )
    body = chosen | {"stream": True}
    with Gateway(find_url(url)) as gateway, naming_others(gateway, collection):
        started: dict[str, Any] = {}
        events = _noted(gateway.events("/v1/query", body), started)
        try:
            reply = final_of(events) if json else show_answer(events)
        except Failure:
            if trace and not json and (explanation := _explanation(gateway, started)):
                explained.show(out, {}, explanation)
            raise
        # A client that leaves before the end is counted as cancelled.
        with suppress(Failure):
            deque(events, maxlen=0)
        explanation = _explanation(gateway, reply) if trace else None
        if not json:
            _orient(gateway, collection, reply)
    if json:
        print_json(reply | ({"trace": explanation} if trace else {}))
    elif explanation is not None:
        explained.show(out, reply, explanation)


def _noted(
    events: Iterable[tuple[str, Mapping[str, Any]]], started: dict[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """`events`, with the data of the first one in `started` too."""
    for event, data in events:
        if event == "start":
            started.update(data)
        yield event, data


def _explanation(gateway: Gateway, reply: Mapping[str, Any]) -> dict[str, Any] | None:
    """The trace of `reply`; None, and a sentence on stderr, where there is none."""
    if not (trace_id := reply.get("trace_id")):
        return None
    try:
        return explained.fetch(gateway, str(trace_id))
    except Failure as failure:
        err.print(failure.message, style="yellow")
        return None


def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to look for, in quotes.")],
    collection: CollectionOption = "default",
    top_k: TopKOption = None,
    mode: ModeOption = None,
    rerank: RerankOption = None,
    min_score: MinScoreOption = None,
    as_of: AsOfOption = None,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Find the passages that fit a query, without writing an answer.

    Examples:

      raglan search "retry budget" -c handbook

      raglan search "retry budget" --mode lexical --top-k 3 --json
    """
    body = options(
        query, collection, top_k=top_k, mode=mode, rerank=rerank, min_score=min_score, as_of=as_of
    )
    with Gateway(find_url(url)) as gateway, naming_others(gateway, collection):
        found = gateway.call("POST", "/v1/search", json=body)
        if json:
            print_json(found)
        else:
            show_passages(found)
            _orient(gateway, collection, found)


def _orient(gateway: Gateway, collection: str, reply: Mapping[str, Any]) -> None:
    """Say so if nothing was found because there is nothing."""
    if not reply.get("passages") and (sentences := about_empty(gateway, collection)):
        err.print(sentences, style="yellow")


def options(
    query: str,
    collection: str,
    *,
    top_k: int | None,
    mode: Mode | None,
    rerank: bool | None,
    min_score: float | None = None,
    as_of: str | None = None,
) -> dict[str, Any]:
    """The request body; what was not chosen is left to the gateway.

    Raises:
        UsageFailure: there is nothing to ask.
    """
    if not query.strip():
        raise UsageFailure("The question is empty.")
    chosen: dict[str, Any] = {
        "top_k": top_k,
        "mode": mode and mode.value,
        "rerank": rerank,
        "min_score": min_score,
        "as_of": as_of,
    }
    given = {name: value for name, value in chosen.items() if value is not None}
    return {"query": query, "collections": [collection], **given}


def final_of(events: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """The `final` object of a stream.

    Raises:
        Failure: the stream ended in an error, or without an end.
    """
    for event, data in events:
        if event == "final":
            return dict(data)
        if event == "error":
            raise _failed(data)
    raise _cut_off()


def show_answer(events: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Print the answer as it streams, then where it comes from; the `final` object.

    Raises:
        Failure: as `final_of`; what had been printed stays.
    """
    with AnswerView(out) as view:
        final = _stream(events, view)
    _show_citations(final)
    _show_footer(final)
    return final


def _stream(events: Iterable[tuple[str, Mapping[str, Any]]], view: AnswerView) -> dict[str, Any]:
    for event, data in events:
        if event == "delta":
            view.feed(data["text"])
        elif event == "restart":
            view.finish()
            out.print(Text("(That was the model's reasoning; its answer follows.)\n", style="dim"))
        elif event == "final":
            if not view.begun:
                view.feed(data.get("answer", ""))
            view.finish()
            return dict(data)
        elif event == "error":
            if view.begun:
                view.finish()
            raise _failed(data)
    raise _cut_off()


def show_passages(found: Mapping[str, Any]) -> None:
    """The passages: rank, score, title, document id, page and headings; then a snippet."""
    for passage in found["passages"]:
        title, document = passage.get("title") or "", passage["document_id"]
        source = document if title in ("", document) else f"{title}  {document}"
        out.print(
            Text.assemble(
                (f"{passage['rank']:>2}", "dim"),
                f"  {_score(passage['scores'])}  ",
                (source, "bold"),
                _place_of(passage, title),
            ),
            Text(f"    {one_line(passage['text'], 240)}"),
            sep="\n",
        )
    if not found["passages"]:
        out.print("Nothing found.")
    _show_footer(found)


def _score(scores: Mapping[str, float | None]) -> str:
    """The score that decided the order: the last stage that gave one."""
    decided = (scores.get(name) for name in ("rerank", "fused", "dense", "lexical"))
    return next((f"{score:.3f}" for score in decided if score is not None), "")


def _show_citations(final: Mapping[str, Any]) -> None:
    if not final.get("citations"):
        return
    out.print()
    for citation in final["citations"]:
        title, document = citation.get("title") or "", citation["document_id"]
        source = title if title == document or not document else f"{title}  {document}".strip()
        out.print(
            Text.assemble(
                (f"[{citation['marker']}] ", "cyan"), (source, "bold"), _place_of(citation, title)
            ),
            Text(f"    “{one_line(citation['quote'], 300)}”", style="dim"),
            sep="\n",
        )


def _place_of(found: Mapping[str, Any], title: str) -> str:
    """Page and headings, as far as they are known and say more than the title."""
    parts = [f"page {page}"] if (page := found.get("page")) else []
    path = list(found.get("heading_path") or ())
    if path and path[0] == title:
        path = path[1:]
    if path:
        parts.append(one_line(" > ".join(path), _PATH_CHARS))
    return f"  ({', '.join(parts)})" if parts else ""


def _show_footer(reply: Mapping[str, Any]) -> None:
    out.print()
    for note in reply.get("degraded") or ():
        said = f"{note['stage']} fell back to {note['fallback']}: {note['reason']}"
        out.print(Text(note["reason"] if note.get("collection") else said, style="yellow"))
    timings = reply.get("timings_ms") or {}
    parts = [f"{name} {timings[name]:.0f} ms" for name in _TIMINGS if name in timings]
    if trace := reply.get("trace_id"):
        parts.append(f"trace {trace}")
    out.print(Text("  ".join(parts), style="dim"))


def _failed(error: Mapping[str, Any]) -> Failure:
    return Failure(str(error.get("message", "The answer failed.")), envelope={"error": dict(error)})


def _cut_off() -> Failure:
    return Failure("The stream ended before the answer was complete; ask again.")
