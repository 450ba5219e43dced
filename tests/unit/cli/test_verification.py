"""What the checks of `raglan verify` make of a status, and of what is no gateway."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from raglan_cli.verification import Result, gpu, status_checks

REVISION = 300
SERVICES = ("embedder", "retriever", "reranker", "generator", "ingester", "tracer")
USE = {
    "name": "cuda:0",
    "model": "NVIDIA H200",
    "uuid": "GPU-1",
    "memory_bytes": 140 << 30,
    "used_bytes": 1 << 29,
    "batch_s": 0.004,
    "batch_tokens": 1024,
    "matrix_s": 0.0001,
    "cpu_matrix_s": 0.004,
}


def row(service, **facts):
    """A replica in which all is well."""
    return {
        "service": service,
        "address": f"10.0.0.1:{7101 + SERVICES.index(service) if service in SERVICES else 8080}",
        "state": "serving",
        "version": "0.1.0",
        "engine": "openvino",
        "device": "cpu",
        "device_asked": "auto",
        "devices": [],
        "driver": None,
        "problems": [],
        "dependencies": [],
        "clock_skew_ms": 0.0,
        "wire_revision": REVISION,
    } | facts


def rows(*changed):
    """The whole mesh, with these rows in place of the good ones."""
    replaced = {each["service"] for each in changed}
    return [row(each) for each in ("gateway", *SERVICES) if each not in replaced] + list(changed)


def by_name(checks):
    return {check.name: check for check in checks}


def test_a_mesh_in_which_all_is_well_fails_nothing():
    checks = [*status_checks.of_services(rows()), *gpu.of_devices(rows(), ())]
    checks += [*status_checks.of_dependencies(rows()), status_checks.of_wire(rows())]
    assert [check for check in checks if check.result is Result.FAILED] == []
    assert all(check.remedy == "" for check in checks)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"state": "unreachable", "version": None}, "10.0.0.1:7101 is unreachable"),
        ({"state": "not_serving"}, "10.0.0.1:7101 is not_serving"),
        ({"problems": ["Collection 'a' is damaged."]}, "Collection 'a' is damaged."),
        ({"version": None}, "does not answer GetInfo"),
    ],
)
def test_a_replica_that_is_not_well_fails_its_service(facts, reason):
    checks = by_name(status_checks.of_services(rows(row("embedder"), row("embedder", **facts))))
    assert checks["embedder"].result is Result.FAILED
    assert reason in checks["embedder"].reason
    assert checks["retriever"].result is Result.OK


def test_a_service_without_an_address_fails_and_a_tracer_may_be_missing():
    checks = by_name(status_checks.of_services([row("gateway")]))
    assert "RAGLAN_GATEWAY_RERANKER_ADDRESS" in checks["reranker"].remedy
    assert checks["tracer"].result is Result.SKIPPED


def test_a_gpu_that_does_the_work_is_described():
    on_gpu = row("embedder", device="cuda:0", device_asked="cuda:0", devices=[USE], driver="570.1")
    check = by_name(gpu.of_devices(rows(on_gpu), ["embedder"]))["gpu embedder"]
    assert check.result is Result.OK
    assert check.reason == (
        "cuda:0 is an NVIDIA H200, driver 570.1; the model holds 0.5 of 140 GiB; a batch of "
        "1,024 tokens takes 4.0 ms, its largest matrix 40 times as fast as on the CPU."
    )


@pytest.mark.parametrize(
    ("facts", "required", "reason"),
    [
        ({"device_asked": "cuda:1"}, [], "was told cuda:1 and runs on cpu"),
        ({}, ["embedder"], "a GPU is required"),
        ({"problems": ["No GPU is used although the driver is loaded."]}, [], "No GPU is used"),
        ({"device": "remote"}, ["embedder"], "runs on remote; a GPU is required"),
        ({"device": "cuda:0", "devices": [USE | {"name": "cpu"}]}, [], "weights are on cpu"),
        ({"device": "cuda:0", "devices": [USE | {"matrix_s": 0.003}]}, [], "only 1.3 times"),
        ({"device": "cuda:0"}, ["embedder"], "older version"),
    ],
)
def test_a_gpu_that_does_not_do_the_work_fails(facts, required, reason):
    check = by_name(gpu.of_devices(rows(row("embedder", **facts)), required))["gpu embedder"]
    assert check.result is Result.FAILED
    assert reason in check.reason
    assert "nvidia-smi" in check.remedy


def test_a_cpu_by_choice_is_skipped_and_the_unused_driver_is_named():
    checks = by_name(gpu.of_devices(rows(row("embedder", driver="570.1")), ()))
    assert checks["gpu embedder"].result is Result.SKIPPED
    assert "driver 570.1" in checks["gpu embedder"].reason
    assert "RAGLAN_EMBEDDER_ENGINE=torch" in checks["gpu embedder"].reason


def test_what_lies_behind_a_service_is_reported_by_it():
    away = {"name": "postgresql", "reachable": False, "problem": "No answer.", "ms": 0}
    there = {"name": "redis", "reachable": True, "problem": None, "ms": 0}
    mesh = rows(row("ingester", dependencies=[away]), row("gateway", dependencies=[there]))
    checks = by_name(status_checks.of_dependencies(mesh))
    assert checks["redis"].result is Result.OK
    assert checks["postgresql"].result is Result.FAILED
    assert "No answer." in checks["postgresql"].reason
    assert "RAGLAN_INGESTER_DATABASE_URL" in checks["postgresql"].remedy
    assert checks["qdrant"].result is Result.SKIPPED


def test_a_clock_that_is_off_is_named_with_its_sign():
    skewed = {"time": 1000.0, "services": rows(row("reranker", clock_skew_ms=-90_000.0))}
    check = status_checks.of_clocks(skewed, 999.9, 1000.1)
    assert check.result is Result.FAILED
    assert "reranker at 10.0.0.1:7103 by -90.0 s" in check.reason
    assert "this machine" not in check.reason


def test_the_clock_of_this_machine_counts_too():
    status = {"time": 1000.0, "services": rows()}
    assert status_checks.of_clocks(status, 1000.0, 1000.2).result is Result.OK
    ahead = status_checks.of_clocks(status, 1060.0, 1060.2)
    assert "this machine by +60.0 s" in ahead.reason


def test_processes_of_an_older_wire_are_named():
    mesh = rows(row("generator", wire_revision=REVISION - 9, version="0.0.9"))
    check = status_checks.of_wire(mesh)
    assert check.result is Result.FAILED
    assert "generator at 10.0.0.1:7104 (version 0.0.9, revision 291)" in check.reason
    assert "embedder" not in check.reason
    silent = status_checks.of_wire(rows(row("tracer", wire_revision=None)))
    assert "revision unknown" in silent.reason


class Page(BaseHTTPRequestHandler):
    body = b"<html>Welcome</html>"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_):
        pass


@pytest.fixture(params=[b"<html>Welcome</html>", b"[]", b'{"services": 1}'])
def other_server(request):
    """A web server that is no gateway."""
    handler = type("Handler", (Page,), {"body": request.param})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_another_web_server_is_recognised(raglan, other_server):
    done = raglan("verify", other_server, "--json")
    (check,) = json.loads(done.out)["checks"]
    assert done.status == 1
    assert check["reason"] == f"What answers at {other_server} is not a Raglan gateway."


def test_a_gateway_that_is_not_there_is_one_line(raglan):
    done = raglan("verify", "http://127.0.0.1:1")
    assert done.status == 1
    assert "No gateway answers at http://127.0.0.1:1" in done.out
    assert len(done.out.splitlines()) == 2, done.out


def test_a_gateway_without_the_checks_is_older(raglan, gateway):
    gateway.services = [{"service": "embedder", "state": "serving"}]
    done = raglan("verify", gateway.url)
    assert done.status == 1
    assert "older than raglan verify" in " ".join(done.out.split())


def test_a_service_that_uses_no_gpu_cannot_be_required_to(raglan):
    done = raglan("verify", "--gpu", "retriever")
    assert done.status == 2
    assert "--gpu retriever" in done.err
