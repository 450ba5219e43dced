"""The Compose files as podman-compose reads them: interpolated, merged, with anchors resolved.

No podman is needed, because nothing is started.
"""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / "deploy" / "compose"
BASE: Final = "compose.yaml"
OBSERVABILITY: Final = "compose.observability.yaml"

MIXES: Final = (
    (BASE,),
    (BASE, "compose.qdrant.yaml"),
    (BASE, "compose.ollama.yaml"),
    (BASE, "compose.gpu.yaml"),
    (BASE, "compose.sources.yaml"),
    (BASE, OBSERVABILITY),
    (BASE, "compose.qdrant.yaml", "compose.gpu.yaml", OBSERVABILITY),
)
"""Files that are started together."""


def load(*names: str, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The files `names` as one, in every profile, with the variables of `environ` alone."""
    return copy.deepcopy(_config(names, tuple((environ or {}).items())))


@cache
def _config(names: tuple[str, ...], environ: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="compose-files-") as made:
        folder = Path(made)
        for path in FOLDER.glob("*.yaml"):
            shutil.copy(path, folder)
        # It asks for podman's version first.
        podman = folder / "podman"
        podman.write_text("#!/bin/sh\necho podman version 5.4.0\n")
        podman.chmod(0o755)
        files = [argument for name in names for argument in ("-f", name)]
        done = subprocess.run(
            [sys.executable, "-m", "podman_compose", "--podman-path", podman, *files, "config"],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "COMPOSE_PROFILES": "gpu", **dict(environ)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    loaded: dict[str, Any] = yaml.safe_load(done.stdout)
    return {key: value for key, value in loaded.items() if not key.startswith("x-")}
