"""`raglan up` and `raglan down` as processes, over services that only answer health checks."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import httpx
import ports
import psutil
import pytest
from raglan_cli import mesh, runfile

LIMIT_S = 90

EMBEDDER = """
import asyncio, os, signal
from raglan.errors import Unavailable
from raglan.rpc.server import Service, serve
from raglan.settings import GrpcSettings

class EmbedderSettings(GrpcSettings, env_prefix="RAGLAN_EMBEDDER_"):
    broken: bool = False
    deaf: bool = False
    engine: str = "fake"
    cache_dir: str = ""

def build(settings):
    return Service("raglan.v1.Fake", lambda server: None, start=lambda: start(settings))

async def start(settings):
    if settings.broken or os.path.exists(os.path.join(os.environ["RAGLAN_DATA"], "broken")):
        raise Unavailable("The model 'x' is not on this machine.")
    if settings.deaf:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)

serve(build, EmbedderSettings)
"""

GATEWAY = """
import json, os, signal, socket, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        body = json.dumps({"pid": os.getpid()}).encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

servers = []
for descriptor in os.environ["RAGLAN_GATEWAY_LISTEN_FD"].split(","):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.socket = socket.socket(fileno=int(descriptor))
    servers.append(server)

def end(*_):
    for server in servers:  # serve_forever ends; what is answered then is answered to its end
        threading.Thread(target=server.shutdown).start()

signal.signal(signal.SIGTERM, end)
serving = [threading.Thread(target=server.serve_forever) for server in servers]
for each in serving: each.start()
for each in serving: each.join()
for server in servers: server.server_close()
"""


@pytest.fixture(scope="module")
def environ(tmp_path_factory):
    """An embedder and a gateway that come before the real ones; the others run elsewhere."""
    packages = tmp_path_factory.mktemp("fakes")
    _package(packages, "embedder", EMBEDDER)
    _package(packages, "gateway", GATEWAY)
    elsewhere = ("retriever", "reranker", "generator", "ingester", "tracer")
    addresses = {f"RAGLAN_GATEWAY_{name.upper()}_ADDRESS": "127.0.0.1:1" for name in elsewhere}
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAGLAN_")}
    return (
        kept | addresses | {"PYTHONPATH": str(packages), "RAGLAN_DATA": str(packages / "no-mesh")}
    )


def _package(folder, name, code):
    package = folder / f"raglan_{name}"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(textwrap.dedent(code))


@pytest.fixture
def port():
    return ports.free_port()


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    yield folder
    if pid := runfile.running_pid(folder):
        os.kill(pid, signal.SIGKILL)  # its services die with it


def raglan(environ, *words):
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "raglan_cli", *map(str, words)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def start(environ, *words, stdout=subprocess.PIPE):
    """The command in front of us, its output in a pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "raglan_cli", "up", *map(str, words)],
        env=environ,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        text=True,
        # A job in the background of a script hands down that it is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def until(condition, what):
    until_s = time.monotonic() + LIMIT_S
    while not (found := condition()):
        assert time.monotonic() < until_s, f"still waiting until {what}"
        time.sleep(0.02)
    return found


def is_gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def ready(data):
    def found():
        document = runfile.read_running(data)
        return document if document and document["state"] == "ready" else None

    return until(found, "the mesh is ready")


def embedder_of(document):
    return next(s for s in document["services"] if s["service"] == "embedder")


def pids_of(document):
    return [service["pid"] for service in document["services"]]


@pytest.fixture(scope="module")
def running(environ, tmp_path_factory):
    """One mesh for the tests that only look at it."""
    folder = tmp_path_factory.mktemp("running")
    with start(environ, "--data", folder, "--port", ports.free_port()) as up:
        yield ready(folder)
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=LIMIT_S)


def test_up_shows_one_screen_and_a_sigterm_stops_all_of_it(environ, data, port):
    with start(environ, "--data", data, "--port", port, "--replicas", "embedder=2") as up:
        document = ready(data)
        up.send_signal(signal.SIGTERM)
        output, _ = up.communicate(timeout=LIMIT_S)
    assert up.returncode == 0, output
    assert len(document["services"]) == 3
    for line in (f"http://127.0.0.1:{port}/docs", "default", str(data), "raglan ingest docs/"):
        assert line in output
    assert all(map(is_gone, pids_of(document)))
    assert runfile.read(data)["state"] == "stopped"


def test_a_second_up_on_the_same_folder_names_the_pid_of_the_first(environ, running):
    second = raglan(environ, "up", "--data", running["data"], "--port", ports.free_port())
    assert second.returncode == 1
    assert f"(pid {running['pid']})" in second.stderr
    assert "Traceback" not in second.stderr


def test_status_shows_the_processes_although_no_gateway_answers_it(environ, running):
    # The fake gateway knows no /v1/status, like one that is broken.
    run = raglan(environ, "status", "--data", running["data"], "--json")
    seen = json.loads(run.stdout)
    assert sorted(s["pid"] for s in seen["services"]) == sorted(pids_of(running))


def test_a_service_that_cannot_start_is_told_in_its_own_words(environ, data, port):
    run = raglan(environ | {"RAGLAN_EMBEDDER_BROKEN": "1"}, "up", "--data", data, "--port", port)
    assert run.returncode == 1
    assert (
        "The embedder ended during the start:\nThe model 'x' is not on this machine." in run.stderr
    )
    assert "Traceback" not in run.stderr
    assert runfile.running_pid(data) is None


def test_a_misspelt_setting_of_a_service_is_told_as_the_service_tells_it(environ, data, port):
    run = raglan(environ | {"RAGLAN_EMBEDDER_ENGIN": "x"}, "up", "--data", data, "--port", port)
    assert run.returncode == 1
    assert "RAGLAN_EMBEDDER_ENGIN is set, but there is no such setting." in run.stderr
    assert "Did you mean RAGLAN_EMBEDDER_ENGINE?" in run.stderr


def test_detach_returns_when_ready_and_down_stops_it(environ, data, port):
    up = raglan(environ, "up", "--data", data, "--port", port, "--detach")
    assert up.returncode == 0, up.stderr
    assert f"raglan down --data {data}" in up.stdout
    document = runfile.read_running(data)
    down = raglan(environ, "down", "--data", data)
    assert (down.returncode, down.stdout) == (0, f"Stopped the mesh on {data}.\n")
    assert all(map(is_gone, [document["pid"], *pids_of(document)]))


def test_detach_shows_why_the_start_failed(environ, data, port):
    broken = environ | {"RAGLAN_EMBEDDER_BROKEN": "1"}
    up = raglan(broken, "up", "--data", data, "--port", port, "--detach")
    assert up.returncode == 1
    assert "The model 'x' is not on this machine." in up.stderr


def test_a_crashed_service_comes_back_and_its_crash_is_shown(environ, data, port):
    with start(environ, "--data", data, "--port", port) as up:
        victim = embedder_of(ready(data))
        os.kill(victim["pid"], signal.SIGKILL)

        def is_back():
            now = embedder_of(runfile.read(data))
            return now["restarts"] == 1 and now["state"] == "ready" and now["pid"] != victim["pid"]

        until(is_back, "the embedder is back")
        up.send_signal(signal.SIGINT)
        output, _ = up.communicate(timeout=LIMIT_S)
    assert "embedder crashed: It was killed (SIGKILL)" in output
    assert "embedder is ready again (restart 1)" in output


def test_a_full_disk_under_its_output_ends_nothing(environ, data, port):
    with (
        Path("/dev/full").open("wb") as full,
        start(environ, "--data", data, "--port", port, stdout=full) as up,
    ):
        victim = embedder_of(ready(data))
        os.kill(victim["pid"], signal.SIGKILL)

        def is_back():
            now = embedder_of(runfile.read(data))
            return now["restarts"] == 1 and now["state"] == "ready"

        until(is_back, "the embedder is back")
        document = runfile.read(data)
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=LIMIT_S)
    assert runfile.read(data)["state"] == "stopped"
    assert all(map(is_gone, pids_of(document)))
    log = (data / "logs" / "embedder-1.log").read_text()
    assert log.rstrip().splitlines()[-1].find("stopping") > 0


def test_logs_are_kept_to_a_size(environ, data, port):
    small = environ | {"RAGLAN_LOG_MAX_MB": "0.0001"}
    with start(small, "--data", data, "--port", port) as up:
        ready(data)
        older = data / "logs" / "embedder-1.log.1"
        until(lambda: older.exists() and "serving" in older.read_text(), "it is rotated")
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=LIMIT_S)
    assert up.returncode == 0
    log = (data / "logs" / "embedder-1.log").read_bytes()
    assert log.startswith(b'{"timestamp"')


def test_a_second_interrupt_ends_at_once_what_does_not_listen(environ, data, port):
    with start(environ | {"RAGLAN_EMBEDDER_DEAF": "1"}, "--data", data, "--port", port) as up:
        document = ready(data)
        up.send_signal(signal.SIGINT)
        until(lambda: embedder_of(runfile.read(data))["state"] == "stopping", "it is stopping")
        began = time.monotonic()
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=LIMIT_S)
    assert up.returncode == 0
    assert time.monotonic() - began < 12, "it waited for the grace"
    assert all(map(is_gone, pids_of(document)))


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_nothing_outlives_a_killed_up_and_the_folder_is_free_again(environ, data, port):
    with start(environ, "--data", data, "--port", port) as up:
        document = ready(data)
        up.kill()
        up.communicate(timeout=LIMIT_S)
    until(lambda: all(map(is_gone, pids_of(document))), "every service is gone")
    assert runfile.running_pid(data) is None
    assert runfile.read_running(data) is None


def test_a_taken_port_is_told_before_anything_starts(environ, data):
    with mesh.socket.create_server(("127.0.0.1", 0)) as listening:
        taken = listening.getsockname()[1]
        run = raglan(environ, "up", "--data", data, "--port", taken)
    assert run.returncode == 1
    assert f"Port {taken} is in use" in run.stderr
    assert not (data / "logs").exists()


def test_a_data_folder_that_cannot_be_is_told(environ, tmp_path, port):
    (tmp_path / "file").touch()
    for flags in ((), ("--detach",)):
        run = raglan(environ, "up", "--data", tmp_path / "file", "--port", port, *flags)
        assert run.returncode == 1
        assert "cannot be written to" in run.stderr
        assert "Traceback" not in run.stderr


def test_down_without_a_mesh_says_so(environ, data):
    run = raglan(environ, "down", "--data", data)
    assert (run.returncode, run.stderr) == (0, f"No mesh runs on {data}.\n")


class Caller:
    """Asks the gateway again and again, each time on a new connection, from a thread of its own."""

    def __init__(self, url):
        self.url = url
        self.answered_by = []
        self.problems = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self):
        while not self._over.is_set():
            try:
                self.answered_by.append(httpx.get(self.url, timeout=20).json()["pid"])
            except httpx.HTTPError as error:
                self.problems.append(repr(error))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


def gateway_of(document):
    return next(s for s in document["services"] if s["service"] == "gateway")


def test_a_restart_replaces_every_process_and_refuses_nobody(environ, data, port):
    with start(environ, "--data", data, "--port", port) as up:
        before = ready(data)
        with Caller(before["url"]) as caller:
            run = raglan(environ, "restart", "--data", data)
            after = runfile.read_running(data)
        up.send_signal(signal.SIGINT)
        output, _ = up.communicate(timeout=LIMIT_S)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("Restarted after ")
    assert not set(pids_of(before)) & set(pids_of(after))
    assert [s["address"] for s in before["services"]] == [s["address"] for s in after["services"]]
    assert [s["restarts"] for s in after["services"]] == [0, 0]
    assert caller.problems == []
    assert set(caller.answered_by) >= {gateway_of(before)["pid"], gateway_of(after)["pid"]}
    assert "embedder-1 is restarted" in output
    assert "crashed" not in output


def test_a_failed_restart_keeps_the_old_process(environ, data, port):
    """A restart of what cannot start again gives up and leaves the old one."""
    with start(environ, "--data", data, "--port", port) as up:
        before = ready(data)
        (data / "broken").touch()
        run = raglan(environ, "restart", "embedder", "--data", data)
        after = runfile.read_running(data)
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=LIMIT_S)
    assert run.returncode == 1
    assert "The model 'x' is not on this machine." in run.stderr
    assert pids_of(before) == pids_of(after)


def test_a_crashed_gateway_costs_callers_a_wait_and_no_refusal(environ, data, port):
    with start(environ, "--data", data, "--port", port) as up:
        before = ready(data)
        os.kill(gateway_of(before)["pid"], signal.SIGKILL)
        until(lambda: is_gone(gateway_of(before)["pid"]), "the gateway is gone")
        answered = httpx.get(before["url"], timeout=20).json()
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=LIMIT_S)
    assert answered["pid"] != gateway_of(before)["pid"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(["restart", "embeder"], "There is no service 'embeder'"), (["restart"], "No mesh runs on")],
)
def test_a_restart_that_cannot_be_is_refused_with_the_reason(environ, data, words, sentence):
    run = raglan(environ, *words, "--data", data)
    assert run.returncode != 0
    assert sentence in run.stderr


def test_a_stop_in_the_middle_of_a_restart_leaves_nothing_behind(environ, data, port):
    with start(environ, "--data", data, "--port", port) as up:
        before = ready(data)
        command = [sys.executable, "-m", "raglan_cli", "restart", "--data", data]
        with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as asking:

            def both():
                found = runfile.read(data)
                return found if len(found["services"]) > len(before["services"]) else None

            during = until(both, "a stand-in runs")
            up.send_signal(signal.SIGINT)
            up.communicate(timeout=LIMIT_S)
            _, said = asking.communicate(timeout=LIMIT_S)
    assert up.returncode == 0
    assert asking.returncode == 1
    assert "The mesh was stopped." in said
    assert all(map(is_gone, [pid for pid in pids_of(during) + pids_of(before) if pid]))
    assert runfile.read(data)["restart"]["state"] == "failed"
