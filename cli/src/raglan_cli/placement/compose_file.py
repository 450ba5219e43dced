"""A plan as an override of `deploy/compose/compose.gpu.yaml`."""

from __future__ import annotations

from typing import Any, Final

import yaml

from raglan_cli.placement.placing import Placement
from raglan_cli.placement.planning import Plan
from raglan_cli.placement.settings import encoder_settings, generator_settings

_HEAD: Final = """\
# Written by raglan plan: GPUs and memory of the model services. Goes after compose.gpu.yaml:
#   COMPOSE_FILE=compose.yaml:compose.gpu.yaml:{name}
# Shares of memory: {shares}.
"""


class _Replaced(list[Any]):
    """A list that replaces that of the files before, where Compose would append to it."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    _Replaced,
    lambda dumper, data: dumper.represent_sequence("!override", list(data), flow_style=False),
)


def compose_override(plan: Plan, *, model: str, name: str) -> str:
    """Write the override.

    Args:
        plan: one with a placement.
        model: hub id or folder of the language model; empty leaves it to `.env`.
        name: of the file, for its first lines.
    """
    placement = plan.placement
    assert placement is not None
    services: dict[str, Any] = {}
    for service in dict.fromkeys(share.service for share in placement.shares):
        if service == "generator":
            settings = generator_settings(plan, model)
        else:
            # A container sees the GPU that it got and no other.
            settings = encoder_settings(service, "cuda:0")
        services[service] = {
            "environment": {
                f"RAGLAN_{service}_{field}".upper(): str(value) for field, value in settings.items()
            },
            "deploy": {"resources": {"reservations": {"devices": _devices(placement, service)}}},
        }
    text = yaml.dump({"services": services}, Dumper=_Dumper, sort_keys=False, width=120)
    return _HEAD.format(name=name, shares=shares_of(placement)) + text


def shares_of(placement: Placement) -> str:
    """List the shares of every device in one line."""
    devices = dict.fromkeys(share.device for share in placement.shares)
    return "; ".join(
        f"GPU {device.name}: "
        + ", ".join(f"{share.service} {share.share:g}" for share in placement.on(device))
        for device in devices
    )


def _devices(placement: Placement, service: str) -> _Replaced:
    ids = [share.device.name for share in placement.of(service)]
    return _Replaced([{"driver": "nvidia", "device_ids": ids, "capabilities": ["gpu"]}])
