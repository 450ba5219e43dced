"""Placement of services on devices: needs and sizes in, a placement or the reason out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from raglan_cli.placement.devices import Device
from raglan_cli.placement.model_memory import ModelMemory

LARGEST_SHARE: Final = 0.9
"""Of a GPU that the generator has to itself, vLLM's default: the driver and what fragments
need the rest."""

RESERVE: Final = 0.04
"""Share of a GPU that several services use which is given to none."""


@dataclass(frozen=True)
class Generator:
    """The language model's needs, by how many GPUs it is split over."""

    memory: Callable[[int, int], ModelMemory]
    """(tensor_parallel, bytes of the GPU) -> need of each GPU."""
    splits: Sequence[int]
    """Numbers of GPUs that the model can be split over, ascending."""


@dataclass(frozen=True)
class Needs:
    """What has to be placed."""

    generator: Generator | None = None
    encoders: Mapping[str, int] = field(default_factory=dict)
    """Service -> bytes."""


@dataclass(frozen=True)
class Share:
    """A service on one device."""

    service: str
    device: Device
    size: int
    """Bytes it needs there."""
    share: float
    """Part of the device's memory that it may take."""


@dataclass(frozen=True)
class Placement:
    """Every service with its devices."""

    shares: tuple[Share, ...]
    generator: ModelMemory | None = None
    """Need of each of its GPUs."""

    def of(self, service: str) -> list[Share]:
        """Return the devices of one service."""
        return [share for share in self.shares if share.service == service]

    def on(self, device: Device) -> list[Share]:
        """Return the services of one device."""
        return [share for share in self.shares if share.device == device]

    @property
    def spare_streams(self) -> int:
        """Streams of the full context that the generator holds in its share."""
        if self.generator is None:
            return 0
        return min(
            self.generator.streams_within(int(share.share * share.device.size))
            for share in self.of("generator")
        )


def place(needs: Needs, devices: Sequence[Device]) -> Placement | None:
    """Find the best placement; None where there is none.

    Best is: the fewest GPUs for the generator, then none of its GPUs shared, then the encoders
    together, then the most memory left for the generator, then the smallest GPU for the encoders.

    Args:
        needs: of the services.
        devices: in any order.
    """
    found = list(_placements(needs, devices))
    return min(found, key=_cost) if found else None


def _cost(placement: Placement) -> tuple[int, int, int, float, int, tuple[str, ...]]:
    generators = {share.device for share in placement.of("generator")}
    encoders = [share for share in placement.shares if share.service != "generator"]
    shared = sum(share.device in generators for share in encoders)
    left = min((share.share * share.device.size for share in placement.of("generator")), default=0)
    homes = {share.device for share in encoders}
    names = tuple(share.device.name for share in placement.shares)
    return len(generators), shared, len(homes), -left, sum(home.size for home in homes), names


def _placements(needs: Needs, devices: Sequence[Device]) -> Iterator[Placement]:
    for homes in _encoder_homes(needs, devices):
        used: dict[Device, int] = dict.fromkeys(devices, 0)
        for service, device in homes.items():
            used[device] += needs.encoders[service]
        if any(size > (1 - RESERVE) * device.size for device, size in used.items()):
            continue
        encoders = tuple(
            Share(
                service, device, needs.encoders[service], share_of(needs.encoders[service], device)
            )
            for service, device in homes.items()
        )
        if needs.generator is None:
            yield Placement(encoders)
            continue
        for group in _groups(needs.generator, devices):
            if (placed := _with_generator(needs.generator, group, encoders)) is not None:
                yield placed


def _encoder_homes(needs: Needs, devices: Sequence[Device]) -> Iterator[dict[str, Device]]:
    """Every assignment of encoders to devices; like devices without a difference count once."""
    candidates = _distinct(devices, len(needs.encoders))
    for chosen in itertools.product(candidates, repeat=len(needs.encoders)):
        yield dict(zip(needs.encoders, chosen, strict=True))


def _distinct(devices: Sequence[Device], count: int) -> list[Device]:
    """Of every size, the last `count` devices: the generator takes from the front."""
    by_size: dict[tuple[int, str], list[Device]] = {}
    for device in devices:
        by_size.setdefault((device.size, device.profile), []).append(device)
    return [device for same in by_size.values() for device in same[-max(1, count) :]]


def _groups(generator: Generator, devices: Sequence[Device]) -> Iterator[list[Device]]:
    """Sets of like devices that the generator can be split over, the first ones of each size."""
    whole: dict[int, list[Device]] = {}
    for device in devices:
        if not device.profile:
            whole.setdefault(device.size, []).append(device)
    for split in generator.splits:
        if split == 1:
            yield from ([device] for device in devices)
            continue
        for same in whole.values():
            if split <= len(same):
                yield same[:split]
                yield same[-split:]


def _with_generator(
    generator: Generator, group: Sequence[Device], encoders: tuple[Share, ...]
) -> Placement | None:
    """Give the generator what the encoders leave of `group`; None where that is too little."""
    smallest = min(device.size for device in group)
    memory = generator.memory(len(group), smallest)
    left = []
    for device in group:
        beside = sum(share.share for share in encoders if share.device == device)
        free = 1 - RESERVE - beside if beside else LARGEST_SHARE
        left.append(min(LARGEST_SHARE, math.floor(free * 100 + 1e-9) / 100))
    # One setting holds for every GPU of the model.
    share = min(left)
    if share * smallest < memory.total:
        return None
    mine = tuple(Share("generator", device, memory.total, share) for device in group)
    return Placement(mine + encoders, memory)


def share_of(size: int, device: Device) -> float:
    """Return the part of `device` that `size` bytes are, rounded up to a hundredth."""
    return math.ceil(size / device.size * 100 - 1e-9) / 100
