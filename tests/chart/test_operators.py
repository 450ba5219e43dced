"""Everything that the operator of a cluster sets, on every service, arrives in its pods."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_chart import (
    CHART,
    ROOT,
    VARIANTS,
    container,
    environment,
    helm,
    of_kind,
    pods,
    render,
    variant,
    workloads,
)
from raglan.settings import SERVICES

POD = {
    "nodeSelector": {"disk": "fast"},
    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "tolerations": [{"key": "rag", "operator": "Exists"}],
    "priorityClassName": "rag-high",
    "runtimeClassName": "gvisor",
    "serviceAccountName": "rag",
}


@pytest.mark.parametrize("place", ["defaults", "services.embedder"])
def test_fields_of_the_pod(place: str) -> None:
    workload = _with(place, **POD)
    pod = workload["spec"]["template"]["spec"]
    assert {key: pod[key] for key in POD} == POD


ADMIN_KEY = "services.gateway.secrets.admin_key"


def test_labels_and_annotations() -> None:
    one = {"owner": "search"}
    workload = _with(
        "services.embedder", labels=one, podLabels=one, annotations=one, podAnnotations=one
    )
    template = workload["spec"]["template"]["metadata"]
    for each in (workload["metadata"], template):
        assert one.items() <= each["labels"].items()
        assert one.items() <= each["annotations"].items()
    assert "owner" not in workload["spec"]["selector"]["matchLabels"]


def test_security_contexts() -> None:
    workload = _with(
        "services.embedder",
        podSecurityContext={"runAsUser": 2000, "seLinuxOptions": {"type": "container_t"}},
        securityContext={"privileged": False},
    )
    assert workload["spec"]["template"]["spec"]["securityContext"]["runAsUser"] == 2000
    assert workload["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
    assert container(workload)["securityContext"]["privileged"] is False


def test_probes_can_be_changed_replaced_and_left_out() -> None:
    probes = {
        "startup": {"failureThreshold": 900},
        "readiness": {"httpGet": {"path": "/ready", "port": 9999}},
        "liveness": {"enabled": False},
    }
    own = container(_with("services.embedder", probes=probes))
    assert own["startupProbe"]["failureThreshold"] == 900
    assert own["startupProbe"]["grpc"]["port"] == 7101
    assert own["readinessProbe"]["httpGet"] == {"path": "/ready", "port": 9999}
    assert "grpc" not in own["readinessProbe"]
    assert "livenessProbe" not in own


def test_spread_is_given_its_selector() -> None:
    pod = workloads(variant("default"))["embedder"]["spec"]["template"]["spec"]
    (spread,) = pod["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == "embedder"
    own = {
        "maxSkew": 2,
        "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"a": "b"}},
    }
    workload = _with("services.embedder", topologySpreadConstraints=[own])
    assert workload["spec"]["template"]["spec"]["topologySpreadConstraints"] == [own]


def test_volumes_containers_and_environment() -> None:
    volume = {"name": "models", "persistentVolumeClaim": {"claimName": "models"}}
    mount = {"name": "models", "mountPath": "/models", "readOnly": True}
    side = {"name": "proxy", "image": "proxy:1"}
    workload = _with(
        "services.embedder",
        extraVolumes=[volume],
        extraVolumeMounts=[mount],
        extraContainers=[side],
        extraInitContainers=[{**side, "name": "first"}],
        extraEnv=[{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        extraEnvFrom=[{"configMapRef": {"name": "more"}}],
        podSpec={"hostAliases": [{"ip": "10.0.0.9", "hostnames": ["hub"]}], "hostUsers": False},
    )
    pod = workload["spec"]["template"]["spec"]
    assert volume in pod["volumes"]
    assert mount in container(workload)["volumeMounts"]
    assert side in pod["containers"]
    assert pod["initContainers"][-1]["name"] == "first"
    assert {"name": "HTTPS_PROXY", "value": "http://proxy:3128"} in container(workload)["env"]
    assert container(workload)["envFrom"] == [{"configMapRef": {"name": "more"}}]
    assert pod["hostUsers"] is False
    assert pod["hostAliases"][0]["ip"] == "10.0.0.9"


def test_resources_strategy_and_image() -> None:
    workload = _with(
        "services.embedder",
        resources={"limits": {"memory": "9Gi", "cpu": 3}},
        updateStrategy={"type": "Recreate"},
        image={"repository": "mirror/embedder", "tag": "2.0", "suffix": "-arm"},
    )
    own = container(workload)
    assert own["resources"]["limits"] == {"memory": "9Gi", "cpu": 3}
    assert own["resources"]["requests"]["cpu"] == "1"
    assert workload["spec"]["strategy"] == {"type": "Recreate"}
    assert own["image"] == "mirror/embedder:2.0-arm"


def test_pull_secrets_and_service_account() -> None:
    objects = render(
        "--set=image.pullSecrets[0].name=registry,serviceAccount.name=rag"
        ",serviceAccount.annotations.role=reader"
    )
    for each in workloads(objects).values():
        pod = each["spec"]["template"]["spec"]
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        assert pod["serviceAccountName"] == "rag"
    account = of_kind(objects, "ServiceAccount")["account"]
    assert account["metadata"]["annotations"] == {"role": "reader"}


def test_services_are_headless_but_the_gateway_s() -> None:
    for name, service in of_kind(variant("default"), "Service").items():
        spec = service["spec"]
        assert (spec.get("clusterIP") == "None") is (name != "gateway")
        # The pools follow health by themselves, and want to see a replica before it is ready.
        assert spec.get("publishNotReadyAddresses", False) is (name != "gateway")
    objects = render("--set", "services.gateway.service.type=LoadBalancer")
    assert of_kind(objects, "Service")["gateway"]["spec"]["type"] == "LoadBalancer"


def test_state_is_in_stateful_sets_of_one() -> None:
    running = workloads(variant("default"))
    stateful = {name for name, each in running.items() if each["kind"] == "StatefulSet"}
    assert stateful == {"retriever", "ingester", "tracer"}
    for name in stateful:
        spec = running[name]["spec"]
        assert spec["replicas"] == 1
        assert spec["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"
        (claim,) = spec["volumeClaimTemplates"]
        assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_qdrant_leaves_the_retriever_without_state() -> None:
    for name in ("several", "bundled"):
        running = workloads(variant(name))
        assert running["retriever"]["kind"] == "Deployment"
    ingester = workloads(variant("several"))["ingester"]
    assert ingester["kind"] == "StatefulSet"
    assert ingester["spec"]["replicas"] == 2
    assert "volumeClaimTemplates" not in ingester["spec"]
    claims = of_kind(variant("several"), "PersistentVolumeClaim")
    assert claims["ingester"]["spec"]["accessModes"] == ["ReadWriteMany"]


def test_disruption_budgets_let_nodes_drain() -> None:
    budgets = of_kind(variant("several"), "PodDisruptionBudget")
    assert budgets.keys() == workloads(variant("several")).keys()
    for each in budgets.values():
        assert each["spec"]["maxUnavailable"] == 1
        assert each["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_a_budget_has_one_limit() -> None:
    objects = render("--set=services.gateway.podDisruptionBudget.minAvailable=1")
    budget = of_kind(objects, "PodDisruptionBudget")["gateway"]["spec"]
    assert (budget["minAvailable"], "maxUnavailable" in budget) == (1, False)


def test_a_cluster_may_choose_the_users() -> None:
    """As OpenShift does: it refuses pods that name a user or a group."""
    objects = render("-f", "values-openshift.yaml", *VARIANTS["bundled"])
    for where, pod in pods(objects):
        assert pod["securityContext"].keys() == {
            "runAsNonRoot", "seccompProfile", "fsGroupChangePolicy",
        }, where  # fmt: skip
    for service in ("embedder", "reranker", "generator"):
        assert environment(workloads(objects)[service])["USER"] == "raglan"


def test_services_listen_on_addresses_of_version_6() -> None:
    objects = render(
        "--set=listen=::,qdrant.bundled=true", "--set-json=services.tracer.otlpFrom=[{}]"
    )
    for service in SERVICES:
        given = environment(workloads(objects)[service])
        assert given[f"RAGLAN_{service.upper()}_HOST"] == "::"
    assert environment(workloads(objects)["tracer"])["RAGLAN_TRACER_OTLP_HOST"] == "::"
    assert environment(workloads(objects)["qdrant"])["QDRANT__SERVICE__HOST"] == "::"


def test_an_image_can_be_named_by_its_digest() -> None:
    digest = f"sha256:{'0123456789abcdef' * 4}"
    objects = render(f"--set=services.embedder.image.digest={digest}")
    found = container(workloads(objects)["embedder"])["image"]
    assert found == f"raglan/embedder:0.1.0@{digest}"


def test_a_service_turns_off_what_is_on_for_all() -> None:
    """False and zero replace the defaults as other values do."""
    objects = render(
        "--set=services.embedder.podDisruptionBudget.enabled=false"
        ",services.ingester.persistence.enabled=false,services.embedder.shutdown.drainS=0"
    )
    assert "embedder" not in of_kind(objects, "PodDisruptionBudget")
    assert "gateway" in of_kind(objects, "PodDisruptionBudget")
    ingester = workloads(objects)["ingester"]
    assert ingester["kind"] == "Deployment"
    drain = environment(workloads(objects)["embedder"])["RAGLAN_EMBEDDER_SHUTDOWN_DRAIN_S"]
    assert drain == "0"


def test_bundled_servers_have_a_password() -> None:
    secrets = of_kind(variant("bundled"), "Secret")
    assert secrets.keys() == {"postgresql", "redis", "qdrant", "gateway"}
    del secrets["gateway"]
    for each in secrets.values():
        key = "api-key" if "qdrant" in each["metadata"]["name"] else "password"
        assert len(each["stringData"][key]) == 48
    assert of_kind(variant("several"), "Secret").keys() == {"gateway"}


def test_a_renderer_without_a_cluster_draws_no_password() -> None:
    """With Secrets of the operator, two renderings are the same: GitOps changes nothing again."""
    options = ",".join(
        f"{server}.bundled=true,{server}.existingSecret=own-{server}"
        for server in ("postgresql", "redis", "qdrant")
    )
    options += ",".join(["", *(f"{ADMIN_KEY}.{value}" for value in ("existingSecret=a", "key=k"))])
    first, second = (helm("template", "r", ".", "--set", options).output for _ in range(2))
    assert first == second
    objects = render("--set", options)
    assert not of_kind(objects, "Secret")
    for client, server in (
        ("ingester", "postgresql"),
        ("gateway", "postgresql"),
        ("gateway", "redis"),
        ("retriever", "qdrant"),
    ):
        for name in (client, server):
            pod = workloads(objects)[name]["spec"]["template"]["spec"]
            assert f"own-{server}" in json.dumps(pod), name


def test_redis_takes_its_configuration_as_the_chart_writes_it(tmp_path: Path) -> None:
    redis = container(workloads(variant("bundled"))["redis"])
    program, option, script = redis["args"]
    (tmp_path / "password").write_text("abc123")
    socket = tmp_path / "redis.sock"
    script = script.replace("/run/secrets/raglan/password", str(tmp_path / "password"))
    script = script.replace("port 6379", f"port 0\nunixsocket {socket}")
    script = script.replace("dir /data", f"dir {tmp_path}")
    with subprocess.Popen([program, option, script], stdout=subprocess.DEVNULL) as server:
        try:
            refused = _redis(socket, {}, "ping")
            taken = _redis(socket, {"REDISCLI_AUTH": "abc123"}, "ping")
        finally:
            server.terminate()
    assert "NOAUTH" in refused
    assert taken.strip() == "PONG"


def _redis(socket: Path, variables: dict[str, str], command: str) -> str:
    """The reply of the server, which is waited for."""
    environ = {"PATH": os.environ["PATH"], **variables}
    for _ in range(300):
        done = subprocess.run(
            ["redis-cli", "-s", str(socket), command],
            env=environ,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        if "Could not connect" not in done.stderr + done.stdout:
            return done.stdout
        time.sleep(0.1)
    raise AssertionError(done.stderr)


def test_alerts_and_dashboards_are_those_of_the_repository() -> None:
    objects = variant("observability")
    observability = ROOT / "deploy" / "observability"
    rules = {
        each["metadata"]["name"].removeprefix("raglan-"): each["spec"]
        for each in objects
        if each["kind"] == "PrometheusRule"
    }
    for name in ("alerts", "recording"):
        source = (observability / "prometheus" / f"{name}.yaml").read_text()
        assert rules[name] == yaml.safe_load(source)
    boards = [each for each in objects if each["kind"] == "ConfigMap"]
    assert len(boards) == len(list((observability / "grafana/dashboards").glob("*.json")))
    for each in boards:
        ((name, content),) = each["data"].items()
        source = observability / "grafana/dashboards" / name.removeprefix("raglan-")
        assert json.loads(content) == json.loads(source.read_text())


def test_the_monitor_finds_every_process() -> None:
    (monitor,) = (each for each in variant("observability") if each["kind"] == "PodMonitor")
    scraped = {each["port"] for each in monitor["spec"]["podMetricsEndpoints"]}
    labels = monitor["spec"]["selector"]["matchLabels"]
    for workload in workloads(variant("observability")).values():
        template = workload["spec"]["template"]
        assert labels.items() <= template["metadata"]["labels"].items()
        names = {each["name"]: each["containerPort"] for each in container(workload)["ports"]}
        (port,) = scraped & names.keys()
        assert template["metadata"]["annotations"]["prometheus.io/port"] == str(names[port])


def test_the_runbook_s_address_goes_before_its_path() -> None:
    objects = render("--set=monitoring.rules=true,monitoring.runbook=https://git.example/raglan/")
    alerts = next(each for each in objects if each["metadata"]["name"] == "raglan-alerts")
    urls = [
        rule["annotations"]["runbook_url"]
        for group in alerts["spec"]["groups"]
        for rule in group["rules"]
    ]
    assert urls
    assert all(each.startswith("https://git.example/raglan/docs/runbook.md#") for each in urls)


def test_every_value_is_explained() -> None:
    """Each key of values.yaml is in the schema, so that a mistake in it is seen."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values.keys() <= schema["properties"].keys()
    assert schema["properties"].keys() - values.keys() == {"global"}
    workload = schema["$defs"]["workload"]["properties"].keys() - {"image"}
    assert values["defaults"].keys() - {"image"} == workload


def _with(place: str, **values: Any) -> dict[str, Any]:
    """The embedder, with values at a place of values.yaml."""
    options = [f"--set-json={place}.{key}={json.dumps(value)}" for key, value in values.items()]
    return workloads(render(*options))["embedder"]
