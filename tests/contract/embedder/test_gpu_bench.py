"""The GPU benchmark runs from end to end; its figures need a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]


def test_the_script_runs_on_a_small_model_and_publishes_nothing() -> None:
    results = REPOSITORY / "bench" / "results" / "gpu_encoders.json"
    before = results.stat().st_mtime_ns if results.exists() else None
    done = subprocess.run(
        [sys.executable, "bench/gpu_encoders.py", "--device", "cpu", "--tiny"],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": "tests:bench", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    for figure in ("passages", "query p50, idle", "query p99 under bulk", "bulk beside a client"):
        assert done.stdout.count(figure) == 2, done.stdout
    assert (results.stat().st_mtime_ns if results.exists() else None) == before
