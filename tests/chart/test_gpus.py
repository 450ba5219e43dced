"""GPUs: none by default, or a whole one, a slice, a share, or a claim that services share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from helm_chart import (
    VARIANTS,
    container,
    environment,
    of_kind,
    pods,
    refusal,
    render,
    variant,
    workloads,
)

MODELS = "--set=services.generator.settings.model=/models/llama,services.generator.model.gib=15"


def test_the_default_asks_for_no_gpu() -> None:
    """One pod without a GPU to run on, and the release would never be whole."""
    for name in ("default", "autoscale", "observability", "bundled"):
        for where, pod in pods(variant(name)):
            assert "nvidia" not in json.dumps(pod), where
    assert environment(workloads(variant("default"))["embedder"])["RAGLAN_EMBEDDER_DEVICE"] == "cpu"


def test_services_of_a_whole_gpu_name_their_device() -> None:
    """A device that is named and missing stops the start; "auto" would take the CPU."""
    running = workloads(variant("gpu"))
    for service in ("embedder", "reranker", "generator"):
        assert container(running[service])["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert environment(running["embedder"])["RAGLAN_EMBEDDER_DEVICE"] == "cuda:0"
    assert environment(running["embedder"])["RAGLAN_EMBEDDER_ENGINE"] == "torch"
    assert environment(running["reranker"])["RAGLAN_RERANKER_RUNTIME"] == "torch"
    assert environment(running["generator"])["RAGLAN_GENERATOR_ENGINE"] == "vllm"
    assert "nvidia.com/gpu" not in container(running["gateway"])["resources"]["limits"]


def test_a_process_with_cuda_has_the_memory_that_it_needs() -> None:
    """The limits of the CPU variant would end it while it loads."""
    names = ("embedder", "reranker", "generator")
    on_cpu, on_gpu = workloads(variant("default")), workloads(variant("gpu"))
    for service in names:
        before = _gib(container(on_cpu[service])["resources"]["limits"]["memory"])
        assert _gib(container(on_gpu[service])["resources"]["limits"]["memory"]) >= 4 * before
    own = render(*VARIANTS["gpu"], "--set=services.generator.resources.limits.memory=64Gi")
    assert container(workloads(own)["generator"])["resources"]["limits"]["memory"] == "64Gi"


def _gib(quantity: str) -> float:
    return float(quantity.removesuffix("Gi"))


def test_several_gpus_go_to_one_pod() -> None:
    objects = render(
        "--set=gpus.two.kind=whole,gpus.two.count=2,services.embedder.gpu.name=two"
        ",services.generator.gpu.name=two",
        MODELS,
    )
    running = workloads(objects)
    assert environment(running["embedder"])["RAGLAN_EMBEDDER_DEVICE"] == "cuda:0,cuda:1"
    assert environment(running["generator"])["RAGLAN_GENERATOR_TENSOR_PARALLEL_SIZE"] == "2"
    assert container(running["generator"])["resources"]["limits"]["nvidia.com/gpu"] == 2


def test_a_mig_slice_is_a_resource_of_its_own() -> None:
    objects = render(
        "--set=gpus.slice.kind=mig,gpus.slice.resource=nvidia.com/mig-1g.10gb"
        ",services.embedder.gpu.name=slice",
    )
    own = container(workloads(objects)["embedder"])
    assert own["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == 1


def test_shares_of_one_gpu_add_up() -> None:
    running = workloads(variant("small"))
    for service in ("embedder", "reranker", "generator"):
        assert container(running[service])["resources"]["limits"]["nvidia.com/gpu.shared"] == 1
    generator = environment(running["generator"])
    assert generator["RAGLAN_GENERATOR_GPU_MEMORY_UTILIZATION"] == "0.75"
    embedder = environment(running["embedder"])
    assert embedder["PYTORCH_ALLOC_CONF"] == "per_process_memory_fraction:0.1"


def test_one_claim_is_shared_by_embedder_and_reranker() -> None:
    objects = render(
        "--set=gpus.encoders.kind=dra",
        '--set-json=services.embedder.gpu={"name": "encoders", "memoryShare": 0.5}',
        '--set-json=services.reranker.gpu={"name": "encoders", "memoryShare": 0.5}',
        "--set-json=gpus.encoders.selectors="
        "[\"device.attributes['gpu.nvidia.com'].productName == 'NVIDIA L4'\"]",
    )
    (claim,) = (each for each in objects if each["kind"] == "ResourceClaim")
    (request,) = claim["spec"]["devices"]["requests"]
    assert request["exactly"]["deviceClassName"] == "gpu.nvidia.com"
    assert request["exactly"]["count"] == 1
    for service in ("embedder", "reranker"):
        workload = workloads(objects)[service]
        pod = workload["spec"]["template"]["spec"]
        assert pod["resourceClaims"] == [
            {"name": "gpu", "resourceClaimName": claim["metadata"]["name"]}
        ]
        assert container(workload)["resources"]["claims"] == [{"name": "gpu"}]
        assert "nvidia.com/gpu" not in container(workload)["resources"]["limits"]


def test_a_claim_for_each_pod_is_a_template() -> None:
    objects = render(
        "--set=gpus.own.kind=dra,gpus.own.perPod=true,services.embedder.gpu.name=own"
        ",services.embedder.replicas=3"
    )
    template = of_kind(objects, "ResourceClaimTemplate")["gpu"]
    pod = workloads(objects)["embedder"]["spec"]["template"]["spec"]
    assert pod["resourceClaims"][0]["resourceClaimTemplateName"] == template["metadata"]["name"]


def test_shares_count_for_each_gpu_of_a_claim() -> None:
    """Two encoders on different GPUs of one claim do not add up."""
    claim = [
        "--set=gpus.two.kind=dra,gpus.two.count=2",
        '--set-json=services.embedder.gpu={"name": "two", "memoryShare": 0.7}',
        '--set-json=services.reranker.gpu={"name": "two", "memoryShare": 0.7}',
        "--set=services.embedder.settings.device=cuda:0",
    ]
    objects = render(*claim, "--set=services.reranker.settings.device=cuda:1")
    assert environment(workloads(objects)["reranker"])["RAGLAN_RERANKER_DEVICE"] == "cuda:1"
    same = refusal(*claim, "--set=services.reranker.settings.device=cuda:0")
    assert "The memory shares of GPU two, cuda:0, add up to 1.40" in same


@pytest.mark.parametrize("name", [name for name in VARIANTS if name in ("gpu", "small")])
def test_a_new_pod_waits_for_the_gpu_of_the_old_one(name: str) -> None:
    strategy = workloads(variant(name))["generator"]["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxSurge": 0, "maxUnavailable": 1}
    strategy = workloads(variant(name))["gateway"]["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxSurge": 1, "maxUnavailable": 0}


def test_models_are_downloaded_once_and_waited_for() -> None:
    objects = variant("gpu")
    job = of_kind(objects, "Job")["models"]
    own = job["spec"]["template"]["spec"]["containers"][0]
    script = own["args"][0]
    for model in ("BAAI/bge-m3", "BAAI/bge-reranker-v2-m3", "Qwen/Qwen3-8B"):
        assert f"hf download '{model}'" in script
    ready = script.strip().splitlines()[-1].removeprefix("touch ")
    for service in ("embedder", "reranker", "generator"):
        workload = workloads(objects)[service]
        (waiting,) = workload["spec"]["template"]["spec"]["initContainers"]
        assert ready in waiting["command"][-1]
        assert environment(workload)["HF_HUB_OFFLINE"] == "1"
        assert environment(workload)["HF_HOME"] == _value(own, "HF_HOME")
    assert "initContainers" not in workloads(objects)["gateway"]["spec"]["template"]["spec"]


def test_what_changes_a_job_renames_it() -> None:
    """A Job cannot be changed; pods wait for the models alone, whatever else is new."""
    small = variant("small")
    other_model = render(
        *VARIANTS["small"], "--set=services.generator.settings.model=Qwen/Qwen3-8B"
    )
    other_image = render(*VARIANTS["small"], "--set=image.tag=0.2.0")
    jobs = [
        of_kind(each, "Job")["models"]["metadata"]["name"]
        for each in (small, other_model, other_image)
    ]
    assert len(set(jobs)) == 3
    assert _awaited(small) == _awaited(other_image)
    assert _awaited(small) != _awaited(other_model)


def _awaited(objects: Sequence[dict[str, Any]]) -> str:
    """The file that the generator waits for."""
    pod = workloads(objects)["generator"]["spec"]["template"]["spec"]
    return str(pod["initContainers"][0]["command"][-1])


def _value(container: dict[str, Any], name: str) -> str:
    (found,) = (each["value"] for each in container["env"] if each["name"] == name)
    return str(found)
