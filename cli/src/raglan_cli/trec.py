"""TREC run files: rankings as trec_eval and other tools read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from raglan_cli.failure import Failure, UsageFailure

_TAG: Final = "raglan"


def require_writable(path: Path, ids: Iterable[str]) -> None:
    """Fail before the evaluation rather than after it.

    Raises:
        UsageFailure: there is no folder for `path`, or the format cannot hold one of `ids`.
    """
    if not path.parent.is_dir() or path.is_dir():
        raise UsageFailure(f"--run {path}: this is no file in a folder that exists.")
    for each in ids:
        if not each or each.split() != [each]:
            raise UsageFailure(
                f"--run: the id {each!r} holds white space, which separates the columns of a run."
            )


def write(path: Path, rankings: Mapping[str, Sequence[str]]) -> None:
    """Write one line for each document: query, Q0, document, rank, score, tag.

    Args:
        path: the run file.
        rankings: query id -> document ids, the best first. trec_eval sorts by score and not by
            rank, so the score is the number of documents from this one to the last.

    Raises:
        Failure: the file cannot be written.
    """
    lines = (
        f"{query} Q0 {document} {rank} {len(ranked) - rank + 1} {_TAG}\n"
        for query, ranked in rankings.items()
        for rank, document in enumerate(ranked, 1)
    )
    try:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
    except OSError as error:
        raise Failure(f"--run {path}: it cannot be written: {error.strerror}.") from None
