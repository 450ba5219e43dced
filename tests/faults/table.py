"""Prints bench/results/faults.json as the table of docs/resilience.md: a line a row of the matrix.

python tests/faults/table.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "bench" / "results" / "faults.json"


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
        lines.append(f"| `{name}` | {met}/{len(judged)} | {'; '.join(map(_shown, judged))} |")
    sys.stdout.write("\n".join(lines) + "\n")


def _shown(row: dict[str, Any]) -> str:
    text = f"{row['what'].partition(': ')[2]} {row['ours']:g} {row['unit']}".strip()
    return text if row["met"] else f"**{text} (not {row['target']})**"


if __name__ == "__main__":
    main()
