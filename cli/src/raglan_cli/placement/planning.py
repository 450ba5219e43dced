"""From a model and a list of GPUs to a plan, or to what would fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Final

from raglan_cli.placement.architecture import Architecture, LatentAttention
from raglan_cli.placement.devices import Device
from raglan_cli.placement.encoders import EncoderMemory
from raglan_cli.placement.model_memory import ModelMemory, Workload, model_memory
from raglan_cli.placement.placing import Generator, Needs, Placement, place
from raglan_cli.placement.quantisation import Precision, on_load
from raglan_cli.placement.sizes import GB, gigabytes

_LARGE_GPU: Final = 70 * GB
"""GPUs from here on get steps of more tokens, as vLLM chooses by itself."""

_SOLD: Final = (16, 24, 32, 48, 80, 96, 141, 180, 288)
"""Sizes in GB of GPUs that can be had, for advice."""

_MOST_GPUS: Final = 16

_CONTEXT_STEP: Final = 1024


@dataclass(frozen=True)
class LanguageModel:
    """The model of the generator."""

    architecture: Architecture
    precision: Precision
    checkpoint_bytes: int | None = None
    """Of its weight files, where they are at hand."""
    quantization: str = ""
    """Done while loading."""

    @property
    def splits(self) -> list[int]:
        """Numbers of GPUs that it can be split over."""
        return [n for n in (1, 2, 4, 8, 16) if _splits(self.architecture, n)]


def _splits(model: Architecture, gpus: int) -> bool:
    attention = model.attention
    if attention.heads % gpus or model.intermediate % gpus:
        return False
    if isinstance(attention, LatentAttention):
        return True
    return attention.kv_heads % gpus == 0 or gpus % attention.kv_heads == 0


@dataclass(frozen=True)
class Request:
    """What has to run where."""

    devices: Sequence[Device]
    model: LanguageModel | None = None
    context: int = 8_192
    streams: int = 32
    encoders: Mapping[str, EncoderMemory] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The answer to a request."""

    request: Request
    placement: Placement | None
    advice: tuple[str, ...] = ()
    """What would fit; empty where it does."""

    @property
    def batched_tokens(self) -> int:
        """Tokens of a step of the generator."""
        assert self.placement is not None
        return batched_tokens(min(s.device.size for s in self.placement.of("generator")))


def batched_tokens(size: int) -> int:
    """Return the tokens of a step on a GPU of `size` bytes, vLLM's default."""
    return 8_192 if size >= _LARGE_GPU else 2_048


def plan(request: Request) -> Plan:
    """Place what is asked for, or find what would fit."""
    placement = place(_needs(request), request.devices)
    return Plan(request, placement, () if placement else tuple(_advice(request)))


def memory_on(request: Request, gpus: int, size: int) -> ModelMemory:
    """Compute the generator's need on each of `gpus` of `size` bytes."""
    model = request.model
    assert model is not None
    workload = Workload(request.context, request.streams, batched_tokens(size))
    return model_memory(
        model.architecture,
        model.precision,
        workload,
        tensor_parallel=gpus,
        checkpoint_bytes=model.checkpoint_bytes,
    )


def _needs(request: Request) -> Needs:
    encoders = {name: memory.total for name, memory in request.encoders.items()}
    if request.model is None:
        return Needs(encoders=encoders)

    @cache
    def memory(gpus: int, size: int) -> ModelMemory:
        return memory_on(request, gpus, size)

    return Needs(Generator(memory, request.model.splits), encoders)


def _fits(request: Request) -> bool:
    return place(_needs(request), request.devices) is not None


def _advice(request: Request) -> Iterator[str]:
    model = request.model
    if model is not None:
        streams = _most(request.streams, lambda n: _fits(replace(request, streams=n)))
        if streams:
            yield f"--streams {streams}"
        steps = _most(
            request.context // _CONTEXT_STEP,
            lambda n: _fits(replace(request, context=n * _CONTEXT_STEP)),
        )
        if steps:
            yield f"--context {steps * _CONTEXT_STEP}"
        if request.encoders and _fits(replace(request, encoders={})):
            yield "the encoders on the CPU (--on-cpu embedder --on-cpu reranker)"
        if not model.architecture.quantization and not model.quantization:
            fp8 = replace(model, precision=on_load("fp8"), checkpoint_bytes=None)
            if _fits(replace(request, model=fp8)):
                yield "--quantization fp8"
    yield from _gpus(request)


def _most(limit: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number below `limit` that fits, by bisection; 0 where none does."""
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _gpus(request: Request) -> Iterator[str]:
    """More GPUs like the largest, and the smallest single one that would do."""
    largest = max(device.size for device in request.devices)
    for count in range(2, _MOST_GPUS + 1):
        more = [Device(n, largest) for n in range(count)]
        if _fits(replace(request, devices=more)):
            yield f"{count} GPUs of {gigabytes(largest)}"
            break
    for size in _SOLD:
        if size * GB > largest and _fits(replace(request, devices=[Device(0, size * GB)])):
            yield f"one GPU of {size} GB"
            break


def shortfall(request: Request) -> str:
    """Say in one sentence what is too large for the devices at hand."""
    largest = max(request.devices, key=lambda device: device.size)
    whole = [device for device in request.devices if device.size == largest.size]
    model = request.model
    needs = [f"the {name} {gigabytes(memory.total)}" for name, memory in request.encoders.items()]
    if model is not None:
        alike = len([device for device in whole if not device.profile])
        gpus = max([n for n in model.splits if n <= max(1, alike)])
        memory = memory_on(request, gpus, largest.size)
        on = f" on each of {gpus} GPUs" if gpus > 1 else ""
        needs.insert(
            0,
            f"the generator {gigabytes(memory.total)}{on} (weights {gigabytes(memory.weights)}, "
            f"{request.streams} streams of {request.context:,} tokens "
            f"{gigabytes(memory.kv_bytes)}, the rest "
            f"{gigabytes(memory.activations + memory.runtime)})",
        )
    there = ", ".join(gigabytes(device.size) for device in request.devices)
    return f"It does not fit on {there}: needed are {'; '.join(needs)}."
