"""The plot of docs/sizing.md from the series that `bench/autoscaling.py` wrote.

.venv-plots/bin/python bench/autoscaling_plot.py docs/deploy/autoscaling.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
# The same bytes for the same series.
mpl.rcParams.update({"svg.hashsalt": "raglan", "svg.fonttype": "none", "font.size": 8})

from matplotlib import pyplot as plt  # noqa: E402 - after the choice of its backend

SERIES = Path(__file__).parent / "results" / "autoscaling-series.json"


def draw(series: dict[str, Any]) -> plt.Figure:
    """One column a service: requests, then replicas of each policy."""
    services = series["services"]
    figure, axes = plt.subplots(
        2, len(services), figsize=(8, 3.6), sharex="col", height_ratios=[1, 1.6], squeeze=False
    )
    for column, (name, service) in enumerate(services.items()):
        above, below = axes[0][column], axes[1][column]
        above.fill_between(service["hours"], service["requests_a_minute"], color="0.75", lw=0)
        above.set_title(f"{name}, {service['times']} times the trace")
        for policy, replicas in service["replicas"].items():
            hours = service["hours"][: len(replicas)]
            below.step(hours, replicas[: len(hours)], where="post", lw=0.9, label=policy)
        below.set_xlabel("hours")
        below.legend(frameon=False, fontsize=6, loc="upper left")
        below.set_ylim(0, 1.45 * max(max(r) for r in service["replicas"].values()))
        for axis in (above, below):
            axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("requests a minute")
    axes[1][0].set_ylabel("replicas")
    figure.tight_layout()
    return figure


def main() -> None:
    """Draw into the file that the command line names."""
    figure = draw(json.loads(SERIES.read_text()))
    figure.savefig(sys.argv[1], metadata={"Date": None})


if __name__ == "__main__":
    main()
