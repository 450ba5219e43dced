"""Compare recorded runs: `make bench-compare`, or `python -m history` with `bench/` on the path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer
from raglan_cli.client import JsonOption
from raglan_cli.failure import FAILED, Failure
from raglan_cli.screen import err, out, print_json
from rich.table import Table

from history import baseline as baselines
from history import comparison, records
from history.baseline import Pair
from history.comparison import Change

app: Final = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)

_STYLES: Final = {"regression": "red", "improvement": "green"}


@app.command()
def compare(
    bench: Annotated[
        str | None, typer.Option(help="Only this one, e.g. mesh-search. Default: all.")
    ] = None,
    baseline: Annotated[
        str, typer.Option(help="A commit, a date such as 2026-11-20, or last.")
    ] = baselines.LAST,
    tolerance: Annotated[
        float, typer.Option(min=0, max=1000, help="Percent that a figure may be worse.")
    ] = 100 * comparison.TOLERANCE,
    confidence: Annotated[
        float, typer.Option(min=50, max=99.9, help="Percent, of each interval.")
    ] = 100 * comparison.CONFIDENCE,
    json: JsonOption = False,
) -> None:
    """Compare the latest runs with a baseline; the exit status is 1 where a figure became worse.

    Worse means: the whole confidence interval of the change lies beyond the tolerance, on the wrong
    side. Only runs on this machine under the same conditions are compared.

    Examples:
      make bench-compare

      make bench-compare OPTIONS="--bench eval-scifact --baseline 2026-11-20 --json"
    """
    try:
        runs, skipped = records.read()
    except OSError as error:
        raise Failure(f"The history cannot be read: {error}") from None
    for sentence in skipped:
        err.print(sentence, style="yellow")
    pairs, left = baselines.pairs(runs, machine=records.machine(), baseline=baseline, bench=bench)
    compared = [
        (
            pair,
            comparison.compare(
                pair.before, pair.now, tolerance=tolerance / 100, confidence=confidence / 100
            ),
        )
        for pair in pairs
    ]
    worse = sum(each.verdict == "regression" for _, changes in compared for each in changes)
    if json:
        print_json(_document(compared, left, worse))
    else:
        _show(compared, left, worse)
    if worse:
        raise typer.Exit(FAILED)


Compared = Sequence[tuple[Pair, Sequence[Change]]]


def _document(compared: Compared, left: Sequence[str], worse: int) -> dict[str, Any]:
    return {
        "machine": records.machine(),
        "regressions": worse,
        "benches": [
            {
                "bench": pair.now[-1].bench,
                "conditions": dict(pair.now[-1].conditions),
                "baseline": sorted({run.revision for run in pair.before}),
                "now": sorted({run.revision for run in pair.now}),
                "runs": [len(pair.before), len(pair.now)],
                "figures": [change.document for change in changes],
            }
            for pair, changes in compared
        ],
        "not_compared": list(left),
    }


def _show(compared: Compared, left: Sequence[str], worse: int) -> None:
    for pair, changes in compared:
        before, now = (baselines.revisions(runs) for runs in (pair.before, pair.now))
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in ("figure", "unit", "before", "now", "change", "interval", "", ""):
            table.add_column(column, overflow="fold")
        for change in changes:
            table.add_row(*_cells(change), style=_STYLES.get(change.verdict))
        against = f"{now} ({_runs(pair.now)}) against {before} ({_runs(pair.before)})"
        out.print(f"{pair.title}: {against}", style="bold")
        out.print(table)
        out.print()
    for sentence in left:
        err.print(sentence)
    out.print(f"Regressions: {worse or 'none'}.", style="bold")


def _runs(runs: Sequence[Any]) -> str:
    return f"{len(runs)} run{'s' if len(runs) > 1 else ''}"


def _cells(change: Change) -> tuple[str, ...]:
    interval, before = change.interval, change.before
    shift, bounds = "", ""
    if interval is not None:
        shift = _change_text(interval.estimate, before)
        bounds = f"{_change_text(interval.low, before)} to {_change_text(interval.high, before)}"
    return (
        *(change.what, change.unit, _value(before), _value(change.now), shift, bounds),
        "" if change.verdict == "unknown" else change.verdict,
        "; ".join(filter(None, [interval.method if interval else "", change.note])),
    )


def _value(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _change_text(difference: float, before: float | None) -> str:
    """Format a change as a share of `before`; in the figure's unit where that is zero."""
    return f"{100 * difference / abs(before):+.1f}%" if before else f"{difference:+.3g}"


def main() -> None:
    """Run the command; a failure is one sentence and its status."""
    try:
        app()
    except Failure as failure:
        err.print(str(failure), style="red", markup=False)
        raise SystemExit(failure.status) from None


if __name__ == "__main__":
    main()
