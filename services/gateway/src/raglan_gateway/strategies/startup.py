"""A warning at start for profiles whose strategies have no language model behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog
from raglan.v1 import common_pb2

from raglan_gateway.profiles import Profiles
from raglan_gateway.query import DEFAULT_GENERATOR

log: Final = structlog.get_logger()

WITHOUT_MODEL: Final = frozenset({"extractive", "null"})
"""Engines of generators that have no language model."""
_EVERY_S: Final = 0.5


async def warn_without_model(
    profiles: Profiles, known: Mapping[str, common_pb2.ServiceInfo], *, every_s: float = _EVERY_S
) -> None:
    """Log each profile whose strategy has no language model, as soon as its generator is known.

    Args:
        profiles: all profiles.
        known: descriptions of services by the names of their pools, as they become known.
        every_s: seconds between two looks.
    """
    waiting = dict(profiles.with_strategy())
    while waiting:
        for name, profile in list(waiting.items()):
            writer = profile.writes_with
            pool = "generator" if writer == DEFAULT_GENERATOR else f"generator_{writer}"
            if (info := known.get(pool)) is None:
                continue
            del waiting[name]
            if info.engine in WITHOUT_MODEL:
                log.warning(
                    "a profile asks for a strategy that its generator cannot follow",
                    profile=name,
                    generator=writer,
                    engine=info.engine,
                    consequence="questions are searched as they are",
                )
        if waiting:
            await asyncio.sleep(every_s)
