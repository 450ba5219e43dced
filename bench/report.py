"""One form for every measurement: a table on the screen and `bench/results/<bench>.json`."""

from __future__ import annotations

import datetime
import json
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


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

    @property
    def ratio(self) -> float | None:
        """Ours over the peer's."""
        return self.ours / self.peer if self.peer else None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
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


def publish(bench: str, rows: Iterable[Row]) -> None:
    """Print `rows` and write them."""
    rows = list(rows)
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
    document = {
        "bench": bench,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "rows": [
            asdict(row) | {"ours": round(row.ours, 4), "ratio": row.ratio, "met": row.met}
            for row in rows
        ],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{bench}.json").write_text(json.dumps(document, indent=1) + "\n")


def machine() -> str:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if platform.system() == "Linux" else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.processor()
    return (
        f"{os.cpu_count()} x {processor}, {platform.system()}, Python {platform.python_version()}"
    )
