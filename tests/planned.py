"""Plans as tests of Compose and chart need them."""

from __future__ import annotations

from typing import Any

from raglan_cli.placement import architecture, planning, quantisation
from raglan_cli.placement.devices import parse_devices
from raglan_cli.placement.encoders import BUNDLED, encoder_memory
from raglan_cli.placement.planning import LanguageModel, Plan, Request


def planned(config: dict[str, Any], *gpus: str, streams: int = 2, encoders: bool = True) -> Plan:
    """Plan `config` and, unless told, both encoders with the bundled model on `gpus`."""
    read = architecture.read(config)
    model = LanguageModel(read, quantisation.of_config(read.quantization, read.dtype))
    names = ("embedder", "reranker") if encoders else ()
    return planning.plan(
        Request(
            parse_devices(gpus),
            model,
            streams=streams,
            encoders={name: encoder_memory(BUNDLED) for name in names},
        )
    )
