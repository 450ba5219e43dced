"""Prints bench/results/faults.json as the table of docs/resilience.md: a line a row of the matrix.

python tests/faults/table.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "bench" / "results" / "faults.json"


_EVERYWHERE = (
    "requests", "without an outcome", "untyped 500", "attempts per request",
    "streams without an end", "back to p99", "tasks of", "descriptors of", "memory of",
)  # fmt: skip
"""What every row is held to; shown where it is missed."""


def main() -> None:
    """Figures that must be reached, the missed ones in bold."""
    found = json.loads(RESULTS.read_text())
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in found["rows"]:
        rows.setdefault(row["what"].partition(": ")[0], []).append(row)
    lines = [f"{found['machine']}, {found['date']}", "", "| row | | figures |", "|---|---|---|"]
    for name, figures in rows.items():
        judged = [row for row in figures if row["target"]]
        met = sum(row["met"] for row in judged)
        shown = "; ".join(_shown(row) for row in judged if not (row["met"] and _everywhere(row)))
        lines.append(f"| `{name}` | {met}/{len(judged)} | {shown} |")
    sys.stdout.write("\n".join(lines) + "\n")


def _everywhere(row: dict[str, Any]) -> bool:
    return bool(row["what"].partition(": ")[2].startswith(_EVERYWHERE))


def _shown(row: dict[str, Any]) -> str:
    value = "never" if row["ours"] is None else f"{row['ours']:g} {row['unit']}"
    text = f"{row['what'].partition(': ')[2]} {value}".strip()
    return text if row["met"] else f"**{text} (not {row['target']})**"


if __name__ == "__main__":
    main()
