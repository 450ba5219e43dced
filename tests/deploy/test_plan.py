"""What `raglan plan` writes for Compose, merged with the files that it belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from compose_files import BASE, load
from model_configs import LLAMA_8B, LLAMA_70B
from planned import planned
from raglan_cli.placement.compose_file import compose_override
from service_settings import accepted

GPUS = [(LLAMA_8B, "24GB"), (LLAMA_8B, "2x24GB"), (LLAMA_70B, "4x80GB")]


def merged(tmp_path: Path, config: dict[str, Any], gpu: str) -> dict[str, Any]:
    """The services with the plan's settings; its devices are added here, not put in place.

    podman-compose does not read `!override` before a list of mappings, which Docker Compose does.
    """
    made = planned(config, gpu)
    assert made.placement is not None
    written = tmp_path / "compose.plan.yaml"
    text = compose_override(made, model="/models/llama", name=written.name)
    assert text.count(" !override\n") == 3
    written.write_text(text.replace(" !override", ""))
    services: dict[str, Any] = load(BASE, "compose.gpu.yaml", str(written))["services"]
    return services


@pytest.mark.parametrize(("config", "gpu"), GPUS, ids=["shared", "two", "split"])
def test_services_take_the_settings_of_the_plan(
    tmp_path: Path, config: dict[str, Any], gpu: str
) -> None:
    services = merged(tmp_path, config, gpu)
    for name in ("generator", "embedder", "reranker"):
        environment = {key: str(value) for key, value in services[name]["environment"].items()}
        accepted(name, environment, folder=tmp_path)
    assert services["embedder"]["environment"]["RAGLAN_EMBEDDER_DEVICE"] == "cuda:0"
    assert services["generator"]["environment"]["RAGLAN_GENERATOR_MODEL"] == "/models/llama"
    devices = services["generator"]["deploy"]["resources"]["reservations"]["devices"]
    assert {device["driver"] for device in devices} == {"nvidia"}
