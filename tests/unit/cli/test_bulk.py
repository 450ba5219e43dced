"""`raglan bulk` before it reaches a cluster."""

from __future__ import annotations

import subprocess
import sys


def test_without_ray_it_says_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "raglan_cli", "bulk", "/srv/handbook"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'raglan-ingester[bulk]'" in done.stderr
