"""One storage of podman for all tests of this folder.

`RAGLAN_TEST_CONTAINERS=/var/tmp/somewhere` keeps images there from run to run, so that only what
changed is built again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import build
from containers.engine import Podman


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    """An empty podman, or the one that was kept."""
    kept = os.environ.get("RAGLAN_TEST_CONTAINERS", "")
    engine = Podman(Path(kept or tempfile.mkdtemp(prefix="raglan-", dir="/var/tmp")))
    try:
        yield engine
    finally:
        engine.close(keep=bool(kept))


@pytest.fixture(scope="session")
def base(podman: Podman) -> str:
    """The image that stands in for python:3.11-slim-bookworm."""
    if podman("images", "--quiet", build.PYTHON).strip() == "":
        build.python_base(podman)
    return build.PYTHON


@pytest.fixture(scope="session")
def images(podman: Podman, base: str) -> Podman:
    """Podman, with every CPU image of ours."""
    build.own_images(podman)
    return podman


@pytest.fixture(scope="session")
def stores(podman: Podman, base: str) -> Podman:
    """Podman, with the images of Redis and PostgreSQL."""
    build.store_images(podman)
    return podman
