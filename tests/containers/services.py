"""What each image is expected to be; the rest is the settings classes' business."""

from __future__ import annotations

import tomllib
from typing import Final

from containers.build import REPOSITORY

VERSION: Final = tomllib.loads((REPOSITORY / "services/common/pyproject.toml").read_text())[
    "project"
]["version"]

PORTS: Final = {
    "gateway": 8080,
    "embedder": 7101,
    "retriever": 7102,
    "reranker": 7103,
    "generator": 7104,
    "ingester": 7105,
    "tracer": 7106,
}

LIMITS_MB: Final = {
    "gateway": 400,
    "embedder": 1500,
    "retriever": 400,
    "reranker": 1500,
    "generator": 400,
    "ingester": 400,
    "tracer": 400,
    "cli": 400,
}
"""Largest size of each image."""


def image(name: str) -> str:
    """The full name of an image of ours."""
    return f"localhost/raglan/{name}:{VERSION}"
