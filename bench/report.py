"""One form for every measurement: a table, `bench/results/<bench>.json`, a line of the history.

The table and the file show the last run; the history keeps each for `make bench-compare`.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from history import records
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
_NO_VALUE = "no value came back"


@dataclass(frozen=True)
class Row:
    """One figure. `peer` is what the same run gave a peer.

    `target` reads "<= 20" or ">= 0.73"; "ratio >= 5" bounds ours over the peer's.
    """

    what: str
    unit: str
    ours: float
    target: str | None = None
    peer: float | None = None
    peer_name: str | None = None
    note: str | None = None
    samples: Sequence[float] = ()
    """Values from which `ours` was computed, in its unit; kept in the history alone."""
    statistic: str = "mean"
    """Statistic of `samples` that `ours` is: "mean", or a percentile such as "p95"."""

    @property
    def better(self) -> records.Better | None:
        """In which direction the target lies; None without one."""
        if self.target is None:
            return None
        return "lower" if "<=" in self.target else "higher"

    @property
    def ratio(self) -> float | None:
        """Ours over the peer's."""
        return self.ours / self.peer if self.peer else None

    @property
    def met(self) -> bool | None:
        """True if the target is met; None without one."""
        if self.target is None:
            return None
        *of_ratio, sign, bound = self.target.split()
        value = self.ratio if of_ratio else self.ours
        if value is None:
            return False
        return value <= float(bound) if sign == "<=" else value >= float(bound)


def measure(
    bench: str, groups: Mapping[str, Callable[[], list[Row]]], chosen: Sequence[str]
) -> None:
    """Run the `chosen` groups, or all, and publish their rows under a name that says which.

    What fails is told at the end and costs the others nothing. Stopped by a signal, the process
    ends in order, so that each group stops its servers.
    """
    if unknown := set(chosen) - set(groups):
        raise SystemExit(f"There is no {', '.join(unknown)}; there are {', '.join(groups)}.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    rows: list[Row] = []
    failed: list[str] = []
    for name in chosen or groups:
        begun = time.monotonic()
        try:
            found = groups[name]()
        except Exception:  # noqa: BLE001 - one group's failure is not the others'
            traceback.print_exc()
            failed.append(name)
        else:
            rows += found
            # What is known so far, should the rest be interrupted.
            for row in found:
                print(f"  {row.what}: {row.ours:.4g} {row.unit}", file=sys.stderr)
        print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    publish("-".join([bench, *chosen]), rows)
    if failed:
        raise SystemExit(f"Without figures, see above: {', '.join(failed)}.")


def share_cores(cores: int) -> None:
    """Keep this process and all it starts on so many cores, on a larger machine too."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def publish(bench: str, rows: Iterable[Row], *, measured: Iterable[Row] | None = None) -> None:
    """Print `rows`, write them, and keep them in the history.

    Args:
        bench: name of the benchmark and of its result file.
        rows: all rows of the table.
        measured: those of this run, where `rows` repeats figures of an earlier one.
    """
    rows = list(rows)
    _print(bench, rows)
    document = {
        "bench": bench,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": records.machine(),
        "rows": [document_of(row) for row in rows],
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(document, indent=1, allow_nan=False)
    (RESULTS / f"{bench}.json").write_text(text + "\n")
    keep(bench, rows if measured is None else measured)


def keep(bench: str, rows: Iterable[Row]) -> None:
    """Add a run to the history. A history that cannot be written costs no figures."""
    figures = [
        records.figure(
            *(row.what, row.unit, row.ours, row.better),
            samples=row.samples,
            statistic=row.statistic,
        )
        for row in rows
    ]
    _append(bench, figures)


def keep_evaluation(name: str, found: Mapping[str, Any]) -> None:
    """Add a run of `raglan eval --json` to the history, with its measurements.

    Args:
        name: of the evaluation set.
        found: the report.
    """
    figures = []
    for what, samples in found["samples"].items():
        if what.endswith("_ms"):
            for percent in (50, 95):
                value = sorted(samples)[max(0, math.ceil(len(samples) * percent / 100) - 1)]
                label = f"{what.removesuffix('_ms')}, p{percent}"
                figures.append(
                    records.figure(label, "ms", value, samples=samples, statistic=f"p{percent}")
                )
        else:
            better: records.Better = "lower" if what.startswith("over_") else "higher"
            mean = sum(samples) / len(samples)
            figures.append(records.figure(what, "", mean, better, samples=samples, paired=True))
    conditions = {
        "corpus": found["corpus"],
        "queries": str(found["queries"]),
        "mode": found["mode"],
        "rerank": "on" if found["rerank"] else "off",
    }
    _append(f"eval-{name}", figures, conditions)


def _append(
    bench: str, figures: list[records.Figure], conditions: Mapping[str, str] | None = None
) -> None:
    try:
        records.append(records.record(bench, figures, conditions))
    except (OSError, ValueError) as error:
        print(f"This run is not kept: {error}", file=sys.stderr)


def document_of(row: Row) -> dict[str, Any]:
    """`row` as strict JSON, which has no infinity: null, and a note that says so."""
    kept = asdict(row) | {"ratio": row.ratio, "met": row.met}
    del kept["samples"], kept["statistic"]
    notes = [row.note] if row.note else []
    for name in ("ours", "peer"):
        told = f"{name}: {_NO_VALUE}"
        if _endless(kept[name]) and told not in (row.note or ""):
            notes.append(told)
    kept["note"] = "; ".join(notes) or None
    kept |= {name: None for name in ("ours", "peer", "ratio") if _endless(kept[name])}
    if kept["ours"] is not None:
        kept["ours"] = round(kept["ours"], 4)
    return kept


def rows_of(bench: str) -> list[Row]:
    """Return the published rows of `bench`, null as NaN; none if it was never published."""
    path = RESULTS / f"{bench}.json"
    found = json.loads(path.read_text())["rows"] if path.exists() else []
    fields = [
        {key: value for key, value in row.items() if key not in ("ratio", "met")} for row in found
    ]
    return [Row(**(each | {"ours": _number(each["ours"])})) for each in fields]


def _endless(value: float | None) -> bool:
    return value is not None and not math.isfinite(value)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _print(bench: str, rows: Sequence[Row]) -> None:
    table = Table(title=bench)
    for column in ("what", "ours", "unit", "peer", "ratio", "target", "met", "note"):
        table.add_column(column, overflow="fold")
    for row in rows:
        peer = f"{row.peer:.4g} ({row.peer_name})" if row.peer is not None else ""
        met = {True: "yes", False: "NO", None: ""}[row.met]
        ratio = f"{row.ratio:.3g}" if row.ratio is not None else ""
        table.add_row(
            *(row.what, f"{row.ours:.4g}", row.unit, peer, ratio),
            *(row.target or "", met, row.note or ""),
        )
    # A log has no width of its own.
    Console(width=None if sys.stdout.isatty() else 160).print(table)
