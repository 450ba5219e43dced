"""What the chart tells the services agrees with their settings classes and their code."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import service_settings
import yaml
from helm_chart import (
    CHART,
    ROOT,
    SEVERAL,
    VARIANTS,
    container,
    environment,
    of_kind,
    pods,
    ports,
    render,
    variant,
    workloads,
)
from raglan.rpc.health_service import LIVE, name_of
from raglan.settings import SERVICES, ServiceSettings, secret_files_of
from raglan_cli import commands

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
REDIS_URL = "RAGLAN_GATEWAY_REDIS_URL"

OF_LIBRARIES = {
    *(
        "HOME",
        "USER",
        "HF_HOME",
        "HF_HUB_OFFLINE",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "PYTORCH_ALLOC_CONF",
    ),
    "RAGLAN_DATA",
}


@pytest.mark.parametrize("name", VARIANTS)
def test_services_accept_their_environment(name: str, tmp_path: Path) -> None:
    for service, workload in _services(name).items():
        unknown = service_settings.unknown_names(service, environment(workload))
        assert unknown <= OF_LIBRARIES, service
        settings = _accepted(service, workload, tmp_path)
        assert settings.host == "0.0.0.0"
        assert settings.port == VALUES["services"][service]["port"]
        assert settings.log_format == "json"


@pytest.mark.parametrize("name", VARIANTS)
def test_every_called_service_has_its_address(name: str) -> None:
    running = workloads(variant(name))
    for service, workload in _services(name).items():
        given = environment(workload)
        for variable, callee in service_settings.called_services(service).items():
            host, _, port = given[variable].partition(":")
            assert host == f"raglan-{callee}"
            assert int(port) in ports(running[callee]).values()


@pytest.mark.parametrize("name", VARIANTS)
def test_folders_lie_on_volumes(name: str, tmp_path: Path) -> None:
    for service, workload in _services(name).items():
        settings = _accepted(service, workload, tmp_path)
        mounted = [Path(each["mountPath"]) for each in container(workload)["volumeMounts"]]
        for field, folder in service_settings.data_folders(settings).items():
            assert any(folder.is_relative_to(path) for path in mounted), (service, field)


def test_ports_are_the_settings_defaults() -> None:
    for service in SERVICES:
        assert VALUES["services"][service]["port"] == service_settings.port(service)
    assert VALUES["metricsPort"] == service_settings.METRICS_PORT
    tracer = service_settings.settings_of("tracer").model_fields["otlp_port"].default
    assert VALUES["services"]["tracer"]["otlpPort"] == tracer


def test_every_service_of_the_code_runs() -> None:
    assert set(_services("default")) == set(SERVICES)


def test_versions_are_the_code_s() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "services/common/pyproject.toml").read_text())["project"]
    assert chart["appVersion"] == chart["version"] == project["version"]


def test_images_are_named_for_their_services() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    for service, workload in _services("default").items():
        assert container(workload)["image"] == f"raglan/{service}:{chart['appVersion']}"
    gpu = {service: container(each)["image"] for service, each in _services("gpu").items()}
    assert gpu["embedder"] == "raglan/embedder:0.1.0-gpu"
    assert gpu["reranker"] == "raglan/reranker:0.1.0-gpu"
    assert gpu["generator"] == "raglan/generator:0.1.0-vllm"
    assert gpu["gateway"] == "raglan/gateway:0.1.0"


def test_images_of_others_are_those_of_the_one_list() -> None:
    listed = yaml.safe_load((ROOT / "deploy/images/third-party.yaml").read_text())
    images = {
        name: container(each)["image"] for name, each in workloads(variant("bundled")).items()
    }
    for own, name in (("redis", "redis"), ("postgresql", "postgres"), ("qdrant", "qdrant")):
        short = listed[name].removeprefix("docker.io/").removeprefix("library/")
        assert images[own] == short


def test_registry_goes_before_every_image() -> None:
    objects = render("--set", "image.registry=registry.example.com/mirror", *SEVERAL[:-1])
    for where, pod in pods(objects):
        for each in pod["containers"]:
            assert each["image"].startswith("registry.example.com/mirror/"), where


@pytest.mark.parametrize("name", VARIANTS)
def test_probes_ask_by_the_names_of_the_code(name: str) -> None:
    for service, workload in _services(name).items():
        own = container(workload)
        if service == "gateway":
            assert own["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
            # /startupz waits for all services, also for one that is scaled to zero.
            assert own["startupProbe"]["httpGet"]["path"] == "/healthz"
            assert own["livenessProbe"]["httpGet"]["path"] == "/healthz"
        elif name == "tls":
            address = f"127.0.0.1:{service_settings.port(service)}"
            ready = ["raglan-health", address, "--service", service]
            assert own["readinessProbe"]["exec"]["command"] == ready
            assert own["livenessProbe"]["exec"]["command"] == [*ready, "--live"]
        else:
            ready = {"port": service_settings.port(service), "service": name_of(service)}
            assert own["readinessProbe"]["grpc"] == ready
            assert own["livenessProbe"]["grpc"] == {**ready, "service": LIVE}


def test_start_up_budget_follows_the_model() -> None:
    """A large model is not killed while it loads; a service without one is not waited for."""
    budgets = {
        service: _seconds(container(workload)["startupProbe"])
        for service, workload in _services("gpu").items()
    }
    assert budgets["generator"] == pytest.approx(60 + 15.3 * 30, abs=2)
    assert budgets["embedder"] == pytest.approx(60 + 2.2 * 30, abs=2)
    assert budgets["ingester"] == 60
    own = container(_services("gpu")["generator"])
    assert own["startupProbe"]["grpc"]["service"] == name_of("generator")
    # What waits for a database is alive: it is not restarted until the database is there.
    own = container(_services("gpu")["ingester"])
    assert own["startupProbe"]["grpc"]["service"] == LIVE


@pytest.mark.parametrize("name", VARIANTS)
def test_pods_are_given_the_time_that_services_take_to_drain(name: str, tmp_path: Path) -> None:
    for service, workload in _services(name).items():
        settings = _accepted(service, workload, tmp_path)
        sleep = container(workload).get("lifecycle", {}).get("preStop", {}).get("sleep", {})
        needed = sleep.get("seconds", 0) + settings.shutdown_drain_s + settings.shutdown_grace_s
        pod = workload["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] == pytest.approx(needed + 5, abs=1)
    gateway = container(_services(name)["gateway"])
    assert gateway["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}


@pytest.mark.parametrize("name", VARIANTS)
def test_no_variable_of_a_kubernetes_service_becomes_a_setting(name: str) -> None:
    """RAGLAN_GATEWAY_PORT=tcp://10.0.0.1:8080 would stop every gateway."""
    for where, pod in pods(variant(name)):
        if not where.startswith("Job"):
            assert pod["enableServiceLinks"] is False, where


@pytest.mark.parametrize("name", VARIANTS)
def test_no_secret_is_in_the_environment(name: str) -> None:
    for service, workload in _services(name).items():
        files = secret_files_of(service_settings.settings_of(service))
        for variable in container(workload)["env"]:
            if f"{variable['name']}_FILE" in files:
                assert variable["name"].endswith("_URL")
                assert urlsplit(variable["value"]).password is None


def test_secrets_are_mounted_where_their_variables_point() -> None:
    objects = render(
        *SEVERAL,
        "--set=services.generator.secrets.api_key.existingSecret=llm"
        ",services.generator.secrets.api_key.key=token",
    )
    expected = (
        ("gateway", "RAGLAN_GATEWAY_REDIS_URL_FILE", "redis", "uri"),
        ("gateway", "RAGLAN_GATEWAY_DATABASE_PASSWORD_FILE", "postgres", "password"),
        ("ingester", "RAGLAN_INGESTER_DATABASE_PASSWORD_FILE", "postgres", "password"),
        ("retriever", "RAGLAN_RETRIEVER_QDRANT_API_KEY_FILE", "qdrant", "api-key"),
        ("generator", "RAGLAN_GENERATOR_API_KEY_FILE", "llm", "token"),
    )
    for service, variable, secret, key in expected:
        workload = workloads(objects)[service]
        path = Path(environment(workload)[variable])
        mount = _named(container(workload)["volumeMounts"], "secrets")
        assert path.parent == Path(mount["mountPath"])
        volume = _named(workload["spec"]["template"]["spec"]["volumes"], "secrets")
        sources = volume["projected"]["sources"]
        (source,) = (each for each in sources if each["secret"]["name"] == secret)
        assert source["secret"]["items"] == [{"key": key, "path": path.name}]


def test_the_database_is_migrated_before_an_upgrade(tmp_path: Path) -> None:
    """On a server alone: a file of SQLite has one owner, which migrates it at its start."""
    assert "migrate" not in of_kind(variant("default"), "Job")
    job = of_kind(variant("several"), "Job")["migrate"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-upgrade"
    assert container(job)["command"] == ["raglan-ingester", "migrate"]
    assert container(job)["image"] == "raglan/ingester:0.1.0"
    settings = _accepted("ingester", job, tmp_path)
    assert settings == _accepted("ingester", _services("several")["ingester"], tmp_path)
    volumes = job["spec"]["template"]["spec"]["volumes"]
    mounted = {each["name"] for each in container(job)["volumeMounts"]}
    assert mounted == {each["name"] for each in volumes}
    assert not any("persistentVolumeClaim" in each for each in volumes)


def test_the_test_of_the_chart_is_a_command_that_exists() -> None:
    """And it demands the GPUs that services were given."""
    for name, gpus in (("default", []), ("small", ["embedder", "generator", "reranker"])):
        test = of_kind(variant(name), "Pod")["test"]
        own = test["spec"]["containers"][0]
        program, command, url = own["command"]
        assert program == "raglan"
        known = {
            each.callback.__name__ for each in commands.app.registered_commands if each.callback
        }
        assert command in known
        assert url == f"http://raglan-gateway:{service_settings.port('gateway')}"
        assert own.get("args", []) == [word for gpu in gpus for word in ("--gpu", gpu)]


def test_settings_keep_their_numbers() -> None:
    """Helm reads every number as a float: 134217728 must not become 1.34217728e+08."""
    objects = render(
        "--set=services.gateway.settings.max_upload_bytes=134217728",
        "--set-json=services.gateway.settings.stale_answer_s=0.5",
        '--set-json=services.generator.settings.adapters={"legal": "/models/legal"}',
        "--set=services.generator.settings.enforce_eager=true",
    )
    gateway = environment(workloads(objects)["gateway"])
    assert gateway["RAGLAN_GATEWAY_MAX_UPLOAD_BYTES"] == "134217728"
    assert gateway["RAGLAN_GATEWAY_STALE_ANSWER_S"] == "0.5"
    generator = environment(workloads(objects)["generator"])
    assert generator["RAGLAN_GENERATOR_ADAPTERS"] == '{"legal":"/models/legal"}'
    assert generator["RAGLAN_GENERATOR_ENFORCE_EAGER"] == "true"


def test_encoders_run_as_many_streams_as_cores_are_requested() -> None:
    """A pod without a CPU limit sees all cores of its node, and would start a thread on each."""
    running = workloads(variant("default"))
    for service in ("embedder", "reranker"):
        (streams,) = (
            each for each in container(running[service])["env"] if each["name"].endswith("_STREAMS")
        )
        assert streams["valueFrom"]["resourceFieldRef"]["resource"] == "requests.cpu"
    own = workloads(render("--set", "services.embedder.settings.streams=3"))["embedder"]
    assert environment(own)["RAGLAN_EMBEDDER_STREAMS"] == "3"


def test_a_variable_of_the_operator_replaces_that_of_the_chart() -> None:
    own = '[{"name": "RAGLAN_EMBEDDER_LOG_FORMAT", "value": "console"}]'
    workload = workloads(render(f"--set-json=services.embedder.extraEnv={own}"))["embedder"]
    names = [each["name"] for each in container(workload)["env"]]
    assert names.count("RAGLAN_EMBEDDER_LOG_FORMAT") == 1
    assert environment(workload)["RAGLAN_EMBEDDER_LOG_FORMAT"] == "console"


def test_gateway_is_reached_by_its_names_alone() -> None:
    hosts = environment(_services("ingress")["gateway"])["RAGLAN_GATEWAY_ALLOWED_HOSTS"].split(",")
    assert {"localhost", "raglan-gateway", "raglan-gateway.rag.svc", "rag.example.com"} <= set(
        hosts
    )
    assert "*" not in hosts


def _accepted(service: str, workload: dict[str, Any], folder: Path) -> ServiceSettings:
    """The settings that a service loads in its container."""
    given = environment(workload)
    if given.pop(f"{REDIS_URL}_FILE", ""):  # stands for more than a password
        given[REDIS_URL] = "redis://:secret@redis:6379/0"
    return service_settings.accepted(service, given, folder=folder)


def _services(name: str) -> dict[str, dict[str, Any]]:
    """Raglan's own workloads of a variant."""
    return {own: each for own, each in workloads(variant(name)).items() if own in SERVICES}


def _named(things: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = (each for each in things if each["name"] == name)
    return found


def _seconds(probe: dict[str, Any]) -> int:
    product: int = probe["failureThreshold"] * probe["periodSeconds"]
    return product


def test_a_gateway_keeps_its_keys_where_the_chart_has_a_database() -> None:
    """In a pod's own folder they would be gone with it, and everybody be served again."""
    shared = environment(_services("several")["gateway"])
    assert urlsplit(shared["RAGLAN_GATEWAY_DATABASE_URL"]).scheme == "postgresql"
