"""What `raglan plan` writes are values that the chart takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from helm_chart import container, environment, render, workloads
from model_configs import LLAMA_8B, LLAMA_70B

FOLDER = "--set=services.generator.settings.model=/models/llama"
PLANS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "one GPU, a claim": (LLAMA_8B, ("--gpu", "48GB", "--sharing", "dra")),
    "one GPU, time slices": (LLAMA_8B, ("--gpu", "48GB", "--sharing", "time-sliced")),
    "a GPU each": (LLAMA_8B, ("--gpu", "3x24GB")),
    "two GPUs for the language model": (LLAMA_70B, ("--gpu", "2x141GB")),
    "slices": (LLAMA_8B, ("--gpu", "80GB/3g.40gb,2g.20gb,1g.10gb")),
    "encoders on the CPU": (
        LLAMA_8B,
        ("--gpu", "24GB", "--on-cpu", "embedder", "--on-cpu", "reranker"),
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_renders(name: str, tmp_path: Path) -> None:
    config, options = PLANS[name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    values = tmp_path / "values-plan.yaml"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "raglan_cli", "plan", "--llm", str(tmp_path / "config.json")),
            *("--streams", "2", "--model", "/models/llama", "--helm", str(values), *options),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    objects = render("-f", str(values), FOLDER)
    for each in objects:
        kubernetes_validate.validate(each, "1.35", strict=True)
    planned = yaml.safe_load(values.read_text())["services"]
    for service, own in planned.items():
        workload = workloads(objects)[service]
        resources = container(workload)["resources"]
        has_gpu = "claims" in resources or any(
            "nvidia.com/" in each for each in resources["limits"]
        )
        assert has_gpu is bool(own.get("gpu", {}).get("name")), service
    share = planned["generator"]["gpu"]["memoryShare"]
    generator = environment(workloads(objects)["generator"])
    assert float(generator["RAGLAN_GENERATOR_GPU_MEMORY_UTILIZATION"]) == share
