"""Benchmark modules are scripts beside the packages: found by path."""

from __future__ import annotations

import sys
from pathlib import Path

# At the end: a test of another folder must not find them before its own.
sys.path.append(str(Path(__file__).parents[2] / "bench"))
