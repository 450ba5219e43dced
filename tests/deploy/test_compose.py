"""The Compose files agree with the settings classes, with the code, and with each other."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from compose_files import BASE, FOLDER, MIXES, OBSERVABILITY, ROOT, load
from compose_spec.models import ComposeSpecification
from raglan.lifecycle import LAST_WORD_S
from raglan_gateway.admission.admission import PROBES
from service_settings import (
    METRICS_PORT,
    SERVICES,
    accepted,
    called_services,
    data_folders,
    metrics_port,
    port,
    unknown_names,
)

THIRD_PARTY: Final = yaml.safe_load((ROOT / "deploy/images/third-party.yaml").read_text())
VERSION: Final = tomllib.loads((ROOT / "services/common/pyproject.toml").read_text())["project"][
    "version"
]
PAGES: Final = ("grafana", "jaeger", "phoenix")
"""Services of people: their pages are published when compose.observability.yaml is chosen."""


@pytest.fixture(params=MIXES, ids="+".join)
def project(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each combination of files, once a test."""
    return load(*request.param)


every_service = pytest.mark.parametrize("service", SERVICES)


def of(project: Mapping[str, Any], service: str) -> dict[str, Any]:
    found: dict[str, Any] = project["services"][service]
    return found


def environment(project: Mapping[str, Any], service: str) -> dict[str, str]:
    return {name: str(value) for name, value in of(project, service)["environment"].items()}


def test_the_files_are_valid_by_the_specification(project: Any) -> None:
    ComposeSpecification.model_validate(project)


@every_service
def test_every_variable_is_one_that_the_service_reads(project: Any, service: str) -> None:
    assert not unknown_names(service, environment(project, service))


@every_service
def test_the_service_accepts_its_values(project: Any, service: str, tmp_path: Path) -> None:
    settings = accepted(service, environment(project, service), folder=tmp_path)
    assert settings.host == "0.0.0.0"
    assert settings.port == port(service)
    assert getattr(settings, "metrics_port", metrics_port(service)) == metrics_port(service)


@every_service
def test_every_service_that_is_called_is_called_where_it_listens(
    project: Any, service: str
) -> None:
    set_ = environment(project, service)
    for variable, called in called_services(service).items():
        assert set_[variable] == f"{called}:{port(called)}"


@every_service
def test_every_folder_that_is_written_to_is_on_a_volume(
    project: Any, service: str, tmp_path: Path
) -> None:
    volumes = [Path(each.split(":")[1]) for each in of(project, service).get("volumes", [])]
    settings = accepted(service, environment(project, service), folder=tmp_path)
    for name, folder in data_folders(settings).items():
        assert any(folder.is_relative_to(each) for each in volumes), name


@every_service
def test_the_probe_asks_the_port_that_is_listened_on(project: Any, service: str) -> None:
    command, *arguments = of(project, service)["healthcheck"]["test"][1:]
    assert command == "raglan-health"
    if service == "gateway":
        assert "/readyz" in PROBES
        assert arguments == [f"http://127.0.0.1:{port(service)}/readyz"]
    else:
        assert arguments == [f"127.0.0.1:{port(service)}", "--service", service]


def test_no_volume_has_two_owners(project: Any) -> None:
    owners: dict[str, set[str]] = {}
    for name, service in project["services"].items():
        for volume in service.get("volumes", []):
            owners.setdefault(volume.split(":")[0], set()).add(name)
    shared = {volume for volume, of_it in owners.items() if len(of_it) > 1}
    assert shared == {"models"}
    assert {each for each in owners if "/" not in each} == set(project["volumes"])


@every_service
def test_containers_may_do_no_more_than_they_need(project: Any, service: str) -> None:
    held = of(project, service)
    assert held["read_only"] is True
    assert held["cap_drop"] == ["ALL"]
    assert held["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in held
    assert "user" not in held, "the image has a user of its own"


def test_every_container_has_a_limit_of_memory_and_of_its_log(project: Any) -> None:
    for name, service in project["services"].items():
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"]), name
        assert service["logging"]["options"]["max-size"], name


def test_nothing_but_the_gateway_and_pages_of_people_is_published(project: Any) -> None:
    published = {
        name: address for name, service in project["services"].items()
        for address in service.get("ports", ())
    }  # fmt: skip
    assert published.pop("gateway") == f"127.0.0.1:8080:{port('gateway')}"
    assert set(published) <= set(PAGES)
    assert all(address.startswith("127.0.0.1:") for address in published.values())


def test_the_gateway_is_published_where_the_user_says() -> None:
    project = load(BASE, environ={"PUBLISH": "0.0.0.0:80"})
    key_file = "RAGLAN_GATEWAY_ADMIN_KEY_FILE"
    assert environment(project, "gateway")[key_file] == "/run/secrets/gateway_admin_key"
    assert not environment(load(BASE), "gateway")[key_file]
    without = load(BASE, environ={"PUBLISH": "127.0.0.1:80", key_file: ""})
    assert not environment(without, "gateway")[key_file]
    assert of(project, "gateway")["ports"] == ["0.0.0.0:80:8080"]


@every_service
def test_images_are_those_that_make_images_builds(service: str) -> None:
    assert of(load(BASE), service)["image"] == f"raglan/{service}:{VERSION}"
    other = load(BASE, environ={"IMAGE_PREFIX": "registry.test/r/", "IMAGE_TAG": "9"})
    assert of(other, service)["image"] == f"registry.test/r/{service}:9"


def test_images_for_gpus_are_variants_of_the_same_version() -> None:
    project = load(BASE, "compose.gpu.yaml")
    images = {name: of(project, name)["image"].rpartition(":")[2] for name in SERVICES}
    variants = {name: tag for name, tag in images.items() if tag != VERSION}
    gpu = f"{VERSION}-gpu"
    assert variants == {"embedder": gpu, "reranker": gpu, "generator": f"{VERSION}-vllm"}


def test_third_party_images_are_pinned_in_one_list() -> None:
    used = {}
    for names in MIXES:
        for name, service in load(*names)["services"].items():
            if name not in SERVICES:
                used[name.removesuffix("-pull")] = service["image"]
    assert used == THIRD_PARTY
    for image in used.values():
        registry, _, tag = image.partition("/")[0], *image.rpartition(":")[1:]
        assert "." in registry, f"{image}: podman asks no registry by itself"
        assert re.search(r"\d+\.\d+", tag), f"{image} is not pinned"


def test_gpus_are_named_and_nothing_is_said_in_old_ways(project: Any) -> None:
    assert "version" not in project
    for name, service in project["services"].items():
        assert "runtime" not in service, name
        devices = service.get("deploy", {}).get("resources", {}).get("reservations", {})
        for device in devices.get("devices", ()):
            assert device["driver"] == "nvidia"
            assert device["capabilities"] == ["gpu"]
            # Metrics are of all GPUs; a service of the mesh has its own.
            assert device.get("count") == "all" or device["device_ids"] == ["0"]
            assert ("count" in device) == (name == "dcgm-exporter")


def test_start_waits_only_for_what_can_become_healthy(project: Any) -> None:
    services = project["services"]
    for name, service in services.items():
        for other, condition in service.get("depends_on", {}).items():
            assert other in services, f"{name} waits for {other}"
            if condition["condition"] == "service_healthy":
                assert services[other]["healthcheck"]["test"], f"{name} waits for {other}"
    _assert_acyclic({name: set(each.get("depends_on", ())) for name, each in services.items()})


def test_a_service_that_can_be_done_without_does_not_hold_up_the_gateway() -> None:
    """Without them answers are degraded; a wrong model name must not keep the gateway down."""
    waits = of(load(BASE), "gateway")["depends_on"]
    healthy = {name for name, each in waits.items() if each["condition"] == "service_healthy"}
    assert healthy == {"retriever", "redis"}
    assert set(waits) == {*SERVICES, "redis"} - {"gateway"}


def test_a_secret_is_a_file_that_the_service_was_given(project: Any) -> None:
    for name, service in project["services"].items():
        told = yaml.safe_dump(service)
        read = set(re.findall(r"/run/secrets/(\w+)", told))
        assert read <= set(service.get("secrets", ())), name
        for secret in service.get("secrets", ()):
            assert project["secrets"][secret] == {"file": f"./secrets/{secret}"}
    given = [
        each for service in project["services"].values() for each in service.get("secrets", ())
    ]
    assert set(given) == set(project["secrets"])


@every_service
def test_there_is_time_to_finish_before_a_container_is_killed(
    project: Any, service: str, tmp_path: Path
) -> None:
    settings = accepted(service, environment(project, service), folder=tmp_path)
    needed = settings.shutdown_drain_s + settings.shutdown_grace_s + LAST_WORD_S
    assert int(of(project, service)["stop_grace_period"].removesuffix("s")) >= needed + 5


def test_prometheus_scrapes_every_process() -> None:
    config = yaml.safe_load((ROOT / "deploy/observability/prometheus/compose.yaml").read_text())
    scraped = {
        name: names["port"]
        for job in config["scrape_configs"]
        for names in job["dns_sd_configs"]
        for name in names["names"]
    }
    assert {name: scraped[name] for name in SERVICES} == {
        name: metrics_port(name) for name in SERVICES
    }
    assert set(scraped) <= set(load(BASE, OBSERVABILITY)["services"])
    assert {scraped[name] for name in SERVICES} == {METRICS_PORT, port("gateway")}


def test_spans_reach_the_pages_through_the_collector() -> None:
    project = load(BASE, OBSERVABILITY)
    folder = ROOT / "deploy/observability/collector"
    base = yaml.safe_load((folder / "tail-sampling.yaml").read_text())
    added = yaml.safe_load((folder / "compose.yaml").read_text())
    http_port = base["receivers"]["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")[2]
    for service in SERVICES:
        endpoint = environment(project, service)["OTEL_EXPORTER_OTLP_ENDPOINT"]
        assert endpoint == f"http://collector:{http_port}"
    (pipeline,) = added["service"]["pipelines"].values()
    assert set(pipeline["exporters"]) == {*base["exporters"], *added["exporters"]}
    assert environment(project, "collector")["TRACES_ENDPOINT"] == "jaeger:4317"
    assert added["exporters"]["otlp/phoenix"]["endpoint"] == "phoenix:4317"


def test_grafana_finds_the_data_sources_that_are_provisioned() -> None:
    project = load(BASE, OBSERVABILITY)
    page = (ROOT / "deploy/observability/grafana/provisioning/datasources/raglan.yaml").read_text()
    assert set(re.findall(r"(?<!\$)\$\{(\w+)\}", page)) <= set(environment(project, "grafana"))


def test_every_file_that_is_mounted_is_there(project: Any, tmp_path: Path) -> None:
    """In the repository, or made by `init.sh`."""
    folder = tmp_path / "deploy/compose"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("sources", "secrets", ".env"))
    subprocess.run(["sh", "init.sh"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    for service in project["services"].values():
        for volume in service.get("volumes", []):
            if (source := volume.split(":")[0]).startswith("."):
                assert (folder / source).is_dir() or (FOLDER / source).is_dir(), source


def test_ollama_and_the_generator_agree() -> None:
    project = load(BASE, "compose.ollama.yaml", environ={"OLLAMA_CONTEXT_LENGTH": "4096"})
    ollama, generator = environment(project, "ollama"), environment(project, "generator")
    assert generator["RAGLAN_GENERATOR_MAX_MODEL_LEN"] == ollama["OLLAMA_CONTEXT_LENGTH"] == "4096"
    assert generator["RAGLAN_GENERATOR_MODEL"] == of(project, "ollama-pull")["command"][1]
    # What the generator lets through is what Ollama writes and keeps waiting.
    places = int(ollama["OLLAMA_NUM_PARALLEL"]) + int(ollama["OLLAMA_MAX_QUEUE"])
    assert int(generator["RAGLAN_GENERATOR_MAX_CONCURRENCY"]) == places


def _assert_acyclic(waits: Mapping[str, set[str]]) -> None:
    left = {name: set(others) for name, others in waits.items()}
    while left:
        ready = {name for name, others in left.items() if not others & left.keys()}
        assert ready, f"{sorted(left)} wait for each other"
        for name in ready:
            del left[name]
