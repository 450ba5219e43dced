"""What `raglan plan` writes for the chart, as helm renders it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helm_chart import container, environment, of_kind, render, workloads
from model_configs import LLAMA_8B, LLAMA_70B
from planned import planned
from raglan_cli.placement.helm_values import Sharing, helm_values


def rendered(
    tmp_path: Path, config: dict[str, Any], gpu: str, sharing: Sharing = "dra"
) -> tuple[dict[str, Any], ...]:
    made = planned(config, gpu)
    assert made.placement is not None
    values = tmp_path / "values-plan.yaml"
    values.write_text(helm_values(made, model="org/llama", name=values.name, sharing=sharing))
    return render("-f", str(values))


def test_services_of_one_gpu_share_a_claim(tmp_path: Path) -> None:
    objects = rendered(tmp_path, LLAMA_8B, "24GB")
    assert len(of_kind(objects, "ResourceClaim")) == 1
    running = workloads(objects)
    for name in ("generator", "embedder", "reranker"):
        assert container(running[name])["resources"]["claims"] == [{"name": "gpu"}]
    generator = environment(running["generator"])
    assert generator["RAGLAN_GENERATOR_TENSOR_PARALLEL_SIZE"] == "1"
    assert float(generator["RAGLAN_GENERATOR_GPU_MEMORY_UTILIZATION"]) < 0.9
    assert generator["RAGLAN_GENERATOR_MAX_NUM_SEQS"] == "2"


def test_a_split_model_shares_its_claim_and_the_encoders_take_one_of_its_gpus(
    tmp_path: Path,
) -> None:
    running = workloads(rendered(tmp_path, LLAMA_70B, "4x80GB", "time-sliced"))
    generator = environment(running["generator"])
    assert generator["RAGLAN_GENERATOR_TENSOR_PARALLEL_SIZE"] == "4"
    assert environment(running["embedder"])["RAGLAN_EMBEDDER_DEVICE"] == "cuda:2"


@pytest.mark.parametrize(
    ("gpu", "resources"),
    [
        ("2x24GB", {"generator": "nvidia.com/gpu", "embedder": "nvidia.com/gpu.shared"}),
        (
            "80GB/3g.40gb,1g.10gb",
            {"generator": "nvidia.com/mig-3g.40gb", "embedder": "nvidia.com/gpu.shared"},
        ),
    ],
)
def test_whole_gpus_slices_and_time_slices(
    tmp_path: Path, gpu: str, resources: dict[str, str]
) -> None:
    running = workloads(rendered(tmp_path, LLAMA_8B, gpu, "time-sliced"))
    for name, resource in resources.items():
        assert container(running[name])["resources"]["limits"][resource] == 1
