"""A plan as values of the chart `deploy/helm/raglan`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import yaml

from raglan_cli.placement.compose_file import shares_of
from raglan_cli.placement.devices import Device
from raglan_cli.placement.placing import Placement
from raglan_cli.placement.planning import Plan
from raglan_cli.placement.settings import encoder_settings, generator_settings
from raglan_cli.placement.sizes import GIB

Sharing = Literal["dra", "time-sliced"]
"""Way in which pods share a GPU: a ResourceClaim, or time-slicing of the device plugin."""

_HEAD: Final = """\
# Written by raglan plan: GPUs and memory of the model services.
#   helm upgrade --install raglan deploy/helm/raglan -f {name}
# Shares of memory: {shares}.
"""

_SET_BY_CHART: Final = {"engine", "runtime", "gpu_memory_utilization", "tensor_parallel_size"}
"""Settings that the chart derives from the GPU."""


def helm_values(plan: Plan, *, model: str, name: str, sharing: Sharing) -> str:
    """Write the values.

    Args:
        plan: one with a placement.
        model: hub id or folder of the language model; empty leaves it to other values.
        name: of the file, for its first lines.
        sharing: of a GPU with several services.
    """
    placement = plan.placement
    assert placement is not None
    homes = _homes(placement)
    sharers = {service: list(homes.values()).count(devices) for service, devices in homes.items()}
    claims = any(
        sharers[service] > 1 and (sharing == "dra" or len(devices) > 1)
        for service, devices in homes.items()
    )
    services: dict[str, Any] = {}
    gpus: dict[str, Any] = {}
    for service in dict.fromkeys(share.service for share in placement.shares):
        devices = homes[service]
        kind = "slice" if devices[0].profile else "gpu"
        key = "-".join([kind, *(device.name.replace(":", "-") for device in devices)])
        shared = sharers[service] > 1
        gpus[key] = _claim(devices, shared) if claims else _resource(devices, shared)
        gpu: dict[str, Any] = {"name": key}
        share = placement.of(service)[0]
        if shared or service == "generator":
            gpu["memoryShare"] = share.share
        services[service] = {
            "gpu": gpu,
            "model": {"gib": _weights_gib(plan, service)},
            "settings": _settings(plan, service, model, devices.index(share.device), devices),
        }
    values: dict[str, Any] = {"gpus": gpus}
    if model and not model.startswith("/"):
        values["modelCache"] = {"enabled": True}  # a name of the hub: a Job downloads it
    text = yaml.safe_dump(values | {"services": services}, sort_keys=False, width=120)
    return _HEAD.format(name=name, shares=shares_of(placement)) + text


def _weights_gib(plan: Plan, service: str) -> float:
    """Size of the model's files, by which the chart sets how long a start may take."""
    placement = plan.placement
    assert placement is not None
    if service != "generator" or placement.generator is None:
        return max(0.1, round(plan.request.encoders[service].weights / GIB, 1))
    return round(placement.generator.weights * len(placement.of("generator")) / GIB, 1)


def _homes(placement: Placement) -> dict[str, list[Device]]:
    """Devices that each service's pod is given: with a device of the generator, all of its."""
    generator = [share.device for share in placement.of("generator")]
    homes = {}
    for share in placement.shares:
        homes[share.service] = generator if share.device in generator else [share.device]
    return homes


def _claim(devices: Sequence[Device], shared: bool) -> dict[str, Any]:
    """A claim.

    All GPUs of a plan are claimed once one has to be, because the device plugin and the driver of
    claims may not manage the same GPUs. Slices of one pod may lie on one GPU, so several GPUs are
    shared by a claim alone.
    """
    found: dict[str, Any] = {"kind": "dra"}
    if not shared:
        found["perPod"] = True
    if len(devices) > 1:
        found["count"] = len(devices)
    if profile := devices[0].profile:
        found["deviceClassName"] = "mig.nvidia.com"
        found["selectors"] = [f"device.attributes['gpu.nvidia.com'].profile == '{profile}'"]
    return found


def _resource(devices: Sequence[Device], shared: bool) -> dict[str, Any]:
    """A resource of the device plugin; `.shared` is what its time-slicing offers."""
    if profile := devices[0].profile:
        resource = f"nvidia.com/mig-{profile.replace('+', '.')}"
        if shared:
            return {"kind": "time-sliced", "resource": f"{resource}.shared"}
        return {"kind": "mig", "resource": resource}
    if shared:
        return {"kind": "time-sliced"}
    return {"kind": "whole", **({"count": len(devices)} if len(devices) > 1 else {})}


def _settings(
    plan: Plan, service: str, model: str, place: int, devices: Sequence[Device]
) -> dict[str, str | int | float]:
    if service == "generator":
        settings = generator_settings(plan, model)
    else:
        settings = encoder_settings(service, f"cuda:{place}")
    left = {field: value for field, value in settings.items() if field not in _SET_BY_CHART}
    if len(devices) == 1:
        left.pop("device", None)
    return left
