"""Photograph a query's trace in Phoenix: python tests/phoenix/picture.py docs/phoenix.png.

Needs Chromium, what `make test-phoenix` installs, and PYTHONPATH=tests.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import phoenix_server


def photograph(url: str, picture: Path) -> None:
    """Save the page at `url`, once its scripts have drawn it."""
    options = (
        "--headless=new",
        "--no-sandbox",
        "--hide-scrollbars",
        "--window-size=1400,860",
        "--virtual-time-budget=20000",
    )
    command = ["chromium", *options, f"--screenshot={picture.resolve()}", url]
    subprocess.run(command, check=True, timeout=180, capture_output=True)


def main(picture: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "phoenix").mkdir()
        with (
            phoenix_server.serving(folder / "phoenix") as phoenix,
            phoenix_server.exporting(folder / "data", phoenix, RAGLAN_TRACE_CONTENT="1") as mesh,
            mesh.client() as client,
        ):
            for _ in range(3):  # the first ones also warm up
                reply = client.post("/v1/query", json={"query": phoenix_server.QUESTION}).json()
            phoenix_server.whole_trace(phoenix, reply["trace_id"])
            photograph(f"{phoenix}/redirects/traces/{reply['trace_id']}", picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
