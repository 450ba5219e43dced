import importlib
import socket
from contextlib import closing
from pathlib import Path

import pytest
from raglan_cli import mesh
from raglan_cli.failure import Failure
from raglan_cli.shared_socket import SharedSocket

DATA = Path("/data")


def planned(environ=None, **replicas):
    return mesh.plan(
        DATA, 8080, replicas, environ or {}, take_ports=lambda n: range(25_001, 25_001 + n)
    )


def program(of, service, replica=1):
    return next(p for p in of.programs if (p.service, p.replica) == (service, replica))


def test_every_service_and_the_gateway_get_a_process():
    assert sorted(p.name for p in planned().programs) == [
        "embedder-1",
        "gateway-1",
        "generator-1",
        "ingester-1",
        "reranker-1",
        "retriever-1",
        "tracer-1",
    ]


def test_the_tracer_asks_the_services_and_the_gateway_is_told_where_it_is():
    of = planned()
    tracer, gateway = program(of, "tracer"), program(of, "gateway")
    assert gateway.env["RAGLAN_GATEWAY_TRACER_ADDRESS"] == tracer.address
    for service in ("embedder", "retriever", "reranker", "generator", "ingester"):
        variable = f"{service.upper()}_ADDRESS"
        told = gateway.env[f"RAGLAN_GATEWAY_{variable}"]
        assert tracer.env[f"RAGLAN_TRACER_{variable}"] == told
    assert tracer.alone


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"},
        {"OTEL_SDK_DISABLED": "true"},
        {"RAGLAN_GATEWAY_TRACER_ADDRESS": "elsewhere:7106"},
    ],
)
def test_no_tracer_is_started_where_spans_go_elsewhere(environ):
    of = planned(environ)
    assert "tracer" not in {p.service for p in of.programs}
    assert of.otlp is None
    told = environ.get("RAGLAN_GATEWAY_TRACER_ADDRESS")
    assert program(of, "gateway").env.get("RAGLAN_GATEWAY_TRACER_ADDRESS") == told


def test_a_second_mesh_receives_spans_on_a_port_of_its_own(monkeypatch):
    with closing(socket.create_server(("127.0.0.1", 0))) as first:
        usual = first.getsockname()[1]
        monkeypatch.setattr(mesh, "_USUAL_OTLP_PORT", usual)
        of = planned()
    port = program(of, "tracer").env["RAGLAN_TRACER_OTLP_PORT"]
    assert port != str(usual)
    assert of.otlp == f"http://127.0.0.1:{port}/v1/traces"
    assert planned().otlp == f"http://127.0.0.1:{usual}/v1/traces", "the usual one where it is free"


@pytest.mark.parametrize("name", ["RAGLAN_TRACER_OTLP_PORT", "RAGLAN_GATEWAY_OTLP_PORT"])
def test_a_port_for_spans_that_was_set_stays(name):
    of = planned({name: "4444"})
    assert of.otlp == "http://127.0.0.1:4444/v1/traces"
    assert program(of, "tracer").env["RAGLAN_TRACER_OTLP_PORT"] == "4444"
    assert planned({name: "-1"}).otlp is None


def test_replicas_listen_apart_and_the_gateway_is_given_all_of_them():
    of = planned(embedder=2)
    first, second = program(of, "embedder"), program(of, "embedder", 2)
    assert first.env["RAGLAN_EMBEDDER_PORT"] != second.env["RAGLAN_EMBEDDER_PORT"]
    file = "@/data/run/embedder.addresses"
    assert of.endpoints["embedder"] == (first.address, second.address)
    assert program(of, "gateway").env["RAGLAN_GATEWAY_EMBEDDER_ADDRESS"] == file
    assert program(of, "ingester").env["RAGLAN_INGESTER_EMBEDDER_ADDRESS"] == file


def test_every_service_is_told_the_data_folder():
    of = planned()
    assert {each.env["RAGLAN_DATA"] for each in of.programs} == {"/data"}


@pytest.mark.parametrize(
    ("service", "field", "folder"),
    [
        ("embedder", "cache_dir", "models"),
        ("tracer", "data_dir", "tracer"),
        ("ingester", "data_dir", "ingester"),
        ("reranker", "cache_dir", "models"),
        ("retriever", "data_dir", "retriever"),
    ],
)
def test_services_keep_data_where_raglan_up_has_it(
    service: str, field: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when they are started by hand with the same data folder."""
    env = program(planned(), service).env
    monkeypatch.setenv("RAGLAN_DATA", env["RAGLAN_DATA"])
    settings = importlib.import_module(f"raglan_{service}.settings")
    made = getattr(settings, f"{service.capitalize()}Settings")()
    assert getattr(made, field) == Path("/data") / folder


def test_what_the_user_set_stays():
    environ = {"RAGLAN_EMBEDDER_ENGINE": "torch", "RAGLAN_EMBEDDER_CACHE_DIR": "/m", "PATH": "/bin"}
    env = program(planned(environ), "embedder").env
    assert {name: env[name] for name in environ} == environ


def test_a_port_the_user_set_is_the_one_that_the_others_are_told():
    of = planned({"RAGLAN_RERANKER_PORT": "7103"})
    assert program(of, "reranker").address == "127.0.0.1:7103"
    assert of.endpoints["reranker"] == ("127.0.0.1:7103",)


def test_a_service_that_runs_elsewhere_is_not_started():
    of = planned({"RAGLAN_GATEWAY_EMBEDDER_ADDRESS": "gpu1:7101"})
    assert "embedder" not in {p.service for p in of.programs}
    assert program(of, "ingester").env["RAGLAN_INGESTER_EMBEDDER_ADDRESS"] == "gpu1:7101"


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("retriever=2", "Qdrant Edge gives a shard to one process"),
        ("gateway=2,retriever=2", "Qdrant Edge gives a shard to one process"),
        ("embeder=2", "there is no service 'embeder'"),
        ("embedder", "write it as embedder=2"),
        ("embedder=two", "write it as embedder=2"),
        ("embedder=0", "give 1 to 16"),
        ("embedder=17", "give 1 to 16"),
    ],
)
def test_replicas_that_cannot_be_are_refused_with_the_reason(option, sentence):
    with pytest.raises(Failure, match=sentence) as refused:
        mesh.parse_replicas([option])
    assert refused.value.status == 2


def test_replicas_are_parsed_by_service():
    assert mesh.parse_replicas(["embedder=2", "reranker=3"]) == {"embedder": 2, "reranker": 3}
    assert mesh.parse_replicas(["gateway=2, embedder=2"]) == {"gateway": 2, "embedder": 2}


def test_gateways_share_their_address_and_know_where_their_peers_are_named():
    of = planned(gateway=2)
    first, second = program(of, "gateway"), program(of, "gateway", 2)
    assert first.address == second.address
    assert first.log != second.log
    assert first.env == second.env
    assert first.env["RAGLAN_GATEWAY_PEERS_FILE"] == "/data/run/gateway.addresses"


def test_a_limit_that_gateways_do_not_share_is_told():
    limit = {"RAGLAN_GATEWAY_RATE_LIMIT_PER_MINUTE": "60"}
    told = mesh.unshared_limit({"gateway": 2}, limit)
    assert "up to 120 a minute instead of 60" in told
    assert mesh.unshared_limit({"gateway": 1}, limit) == ""
    assert mesh.unshared_limit({"gateway": 2}, {}) == ""
    assert mesh.unshared_limit({"gateway": 2}, limit | {"RAGLAN_GATEWAY_REDIS_URL": "r"}) == ""


def test_a_variable_of_no_service_is_refused_with_the_nearest_name():
    environ = {"RAGLAN_EMBEDER_ENGINE": "torch", "RAGLAN_URL": "http://x", "RAGLAN_DATA": "/d"}
    with pytest.raises(Failure, match="Did you mean RAGLAN_EMBEDDER_ENGINE") as refused:
        mesh.refuse_unknown_variables(environ)
    assert "RAGLAN_URL" not in refused.value.message


def test_variables_of_a_service_are_left_for_it_to_judge():
    environ = {"RAGLAN_EMBEDDER_ENGINNE": "torch", "HOME": "/h", "RAGLAN_NOTHING": "x"}
    with pytest.raises(Failure) as refused:
        mesh.refuse_unknown_variables(environ)
    assert [name for name in environ if name in refused.value.message] == ["RAGLAN_NOTHING"]


def test_a_port_that_something_listens_on_is_not_free():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert not mesh.is_free(listening.getsockname()[1])


def test_free_ports_are_different_and_free():
    ports = mesh.free_ports(8)
    assert len(set(ports)) == 8
    assert all(mesh.is_free(port) for port in ports)


@pytest.mark.parametrize("store", ["qdrant", "null"])
def test_a_retriever_that_holds_no_data_may_have_a_second_one_beside_it(store):
    assert program(planned(), "retriever").alone
    assert not program(planned({"RAGLAN_RETRIEVER_STORE": store}), "retriever").alone


def test_who_may_have_another_beside_it_is_found_through_a_file():
    environ = {"RAGLAN_RETRIEVER_STORE": "qdrant"}
    assert set(planned().endpoints) == {"embedder", "reranker", "generator"}
    assert set(planned(environ).endpoints) == {"embedder", "reranker", "generator", "retriever"}
    gateway = program(planned(environ), "gateway")
    assert gateway.env["RAGLAN_GATEWAY_RETRIEVER_ADDRESS"] == "@/data/run/retriever.addresses"


def test_a_stand_in_listens_elsewhere_and_logs_apart():
    embedder = program(planned(), "embedder")
    other = mesh.stand_in(embedder)
    assert other.address == f"127.0.0.1:{other.env['RAGLAN_EMBEDDER_PORT']}"
    assert (other.address, other.log) != (embedder.address, embedder.log)
    assert other.name == "embedder-2"


def test_a_service_gets_the_time_to_end_that_it_was_told_it_has():
    of = planned(
        {"RAGLAN_EMBEDDER_SHUTDOWN_GRACE_S": "60", "RAGLAN_EMBEDDER_SHUTDOWN_DRAIN_S": "5"}
    )
    assert 65 < program(of, "embedder").grace_s < 70
    assert program(of, "reranker").grace_s == pytest.approx(12)
    assert of.stop_s > 2 * 65


@pytest.mark.parametrize(
    ("host", "url"), [("::1", "http://[::1]:8080"), ("::", "http://127.0.0.1:8080")]
)
def test_the_gateway_may_listen_on_ipv6(tmp_path, host, url):
    planned = mesh.plan(tmp_path, 8080, {}, {"RAGLAN_GATEWAY_HOST": host})
    assert (planned.url, planned.listen) == (url, (host, 8080))


def test_services_may_listen_on_ipv6():
    hosts = {f"RAGLAN_{service.upper()}_HOST": "::1" for service in mesh.MODEL_SERVICES}
    of = planned(hosts | {"RAGLAN_RETRIEVER_PORT": "7102"})
    assert program(of, "retriever").address == "[::1]:7102"
    embedder = program(of, "embedder")
    assert embedder.address == f"[::1]:{embedder.env['RAGLAN_EMBEDDER_PORT']}"
    assert program(of, "ingester").env["RAGLAN_INGESTER_RETRIEVER_ADDRESS"] == "[::1]:7102"
    assert mesh.stand_in(embedder).address.startswith("[::1]:")


def test_what_listens_on_ipv6_answers_on_the_address_of_its_url():
    for host, reached in (("::1", "::1"), ("::", "127.0.0.1"), ("::", "::1")):
        (port,) = mesh.free_ports(1)
        assert mesh.is_free(port, host)
        with closing(SharedSocket(host, port)), mesh.socket.create_connection((reached, port), 5):
            assert not mesh.is_free(port, host)


def test_a_metrics_port_that_was_set_is_the_first_replicas():
    variable = "RAGLAN_EMBEDDER_METRICS_PORT"
    of = planned({variable: "9100"}, embedder=2)
    assert [program(of, "embedder", n).env[variable] for n in (1, 2)] == ["9100", "0"]
    assert variable not in program(planned(), "embedder").env
