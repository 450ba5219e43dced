"""The guard against blocking code guards: a blocking test fails, a waiting one passes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).parents[1] / "conftest.py"
TESTS = """
import asyncio, time

async def test_blocks():
    await asyncio.sleep(0)
    time.sleep(0.7)

async def test_waits():
    await asyncio.sleep(0.7)
"""


def test_blocking_the_event_loop_fails_a_test(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text())
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-o", "asyncio_mode=auto", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(CONFTEST.parent)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, cwd=tmp_path, env=environment
    )
    assert "ERROR test_it.py::test_blocks" in done.stdout
    assert "the event loop was blocked" in done.stdout
    assert "2 passed, 1 error" in done.stdout
