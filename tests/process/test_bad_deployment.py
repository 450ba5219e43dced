"""What a container is given wrongly: one line says what, and the process ends or is not ready."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ports import free_port

MOUNT_READ_ONLY = 'mount -t tmpfs -o ro none "$0" && exec "$@"'


@contextmanager
def running(
    service: str, variables: Mapping[str, str], *, read_only: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", f"raglan_{service}"]
    if read_only is not None:
        command = ["unshare", "--mount", "sh", "-c", MOUNT_READ_ONLY, str(read_only), *command]
    port = f"RAGLAN_{service.upper()}_PORT"
    with subprocess.Popen(
        command,
        env={"PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1", port: "0", **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(
    service: str, variables: Mapping[str, str], *, read_only: Path | None = None
) -> tuple[int, list[str]]:
    """The exit status, and what the process complained of."""
    with running(service, variables, read_only=read_only) as process:
        _, written = process.communicate(timeout=300)
    return process.returncode, complaints(written.splitlines())


def complaints(lines: list[str]) -> list[str]:
    """Sentences outside of the log, and the reasons in it."""
    found = []
    for line in lines:
        if not line.startswith("{"):
            found.append(line)
        elif (event := json.loads(line))["level"] in ("warning", "error", "critical"):
            found.append(f"{event['event']}: {event.get('reason', event)}")
    return found


WRONG_SETTINGS = [
    pytest.param(
        "generator", {"RAGLAN_GENERATOR_API_KEY_FILE": "/run/none"},
        "RAGLAN_GENERATOR_API_KEY_FILE: /run/none cannot be read: No such file or directory.",
        id="secret file missing",
    ),
    pytest.param(
        "gateway", {"RAGLAN_GATEWAY_REDIS_URL": "redis://redis",
                    "RAGLAN_GATEWAY_REDIS_PASSWORD_FILE": "/dev/null"},
        "RAGLAN_GATEWAY_REDIS_PASSWORD_FILE: /dev/null is empty; write the secret into it.",
        id="secret file empty",
    ),
    pytest.param(
        "gateway", {"RAGLAN_GATEWAY_EMBEDDER_ADDRESS": "embedder"},
        "RAGLAN_GATEWAY_EMBEDDER_ADDRESS: 'embedder' is no address; write it as host:port "
        "(got 'embedder').",
        id="address without a port",
    ),
    pytest.param(
        "retriever", {"RAGLAN_RETRIEVER_QDRANT_URL": "qdrant:6333"},
        "RAGLAN_RETRIEVER_QDRANT_URL: it is no URL; write http://host:port or https://host:port "
        "(got 'qdrant:6333').",
        id="address for a URL",
    ),
    pytest.param(
        "generator", {"RAGLAN_GENERATOR_ADAPTERS": "{legal"},
        "RAGLAN_GENERATOR_ADAPTERS is not JSON: Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1) (got '{legal').",
        id="no JSON",
    ),
    pytest.param(
        "embedder", {"RAGLAN_DATA_DIR": "/var/lib/raglan"},
        "RAGLAN_DATA_DIR is set, but there is no such setting. Did you mean RAGLAN_DATA?",
        id="unknown name",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("service", "variables", "said"), WRONG_SETTINGS)
def test_a_wrong_setting_ends_the_process_with_one_sentence(
    service: str, variables: dict[str, str], said: str
) -> None:
    assert ended(service, variables) == (2, [said])


@pytest.mark.parametrize(
    ("service", "setting"),
    [
        ("retriever", "RAGLAN_RETRIEVER_DATA_DIR"),
        ("ingester", "RAGLAN_INGESTER_DATA_DIR"),
        ("embedder", "RAGLAN_EMBEDDER_CACHE_DIR"),
    ],
)
def test_a_read_only_volume_ends_the_process_with_one_sentence(
    service: str, setting: str, tmp_path: Path
) -> None:
    status, said = ended(service, {"RAGLAN_DATA": str(tmp_path)}, read_only=tmp_path)
    assert status == 1
    (sentence,) = said
    assert sentence.startswith("cannot start: ")
    assert f"{tmp_path}/" in sentence
    assert "Read-only file system" in sentence
    assert setting in sentence


def test_a_wrong_model_name_ends_the_process_with_one_sentence(tmp_path: Path) -> None:
    wrong = {"RAGLAN_RERANKER_MODEL": "nobody/nothing", "RAGLAN_DATA": str(tmp_path),
             "HF_HOME": str(tmp_path)}  # fmt: skip
    status, said = ended("reranker", wrong)
    assert status == 1
    (sentence,) = said
    assert sentence.startswith("cannot start: Model 'nobody/nothing' cannot be had: ")


class _Keyed(BaseHTTPRequestHandler):
    """Refuses as a Qdrant with a key does."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b"Must provide an API key or an Authorization bearer token")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def keyed_qdrant() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Keyed) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("key", [{}, {"RAGLAN_RETRIEVER_QDRANT_API_KEY": "wrong"}])
def test_a_qdrant_that_refuses_the_key_ends_the_process_with_one_sentence(
    key: dict[str, str], keyed_qdrant: str
) -> None:
    where = {"RAGLAN_RETRIEVER_STORE": "qdrant", "RAGLAN_RETRIEVER_QDRANT_URL": keyed_qdrant}
    status, said = ended("retriever", where | key)
    assert status == 1
    assert said == [
        "cannot start: Qdrant refuses the key, or wants one; check RAGLAN_RETRIEVER_QDRANT_API_KEY."
    ]


@pytest.mark.parametrize(
    ("service", "variables", "said"),
    [
        (
            "retriever",
            {"RAGLAN_RETRIEVER_STORE": "qdrant", "RAGLAN_RETRIEVER_QDRANT_URL": "http://{away}"},
            "waiting: Qdrant cannot be reached (ConnectError); check RAGLAN_RETRIEVER_QDRANT_URL.",
        ),
        (
            "ingester",
            {"RAGLAN_INGESTER_DATABASE_URL": "postgresql://raglan@{away}/raglan"},
            "waiting: The database cannot be reached or refuses the login; check "
            "RAGLAN_INGESTER_DATABASE_URL and RAGLAN_INGESTER_DATABASE_PASSWORD.",
        ),
    ],
)
def test_a_server_that_is_away_is_waited_for_and_the_service_is_not_ready(
    service: str, variables: dict[str, str], said: str, tmp_path: Path
) -> None:
    address, away = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    given = {name: value.format(away=away) for name, value in variables.items()} | {
        "RAGLAN_DATA": str(tmp_path),
        f"RAGLAN_{service.upper()}_PORT": address.rpartition(":")[2],
    }
    with running(service, given) as process:
        assert process.stderr is not None
        read = []
        for line in process.stderr:
            read.append(line)
            if complaints([line]):
                break
        with grpc.insecure_channel(address) as channel:
            reply = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=60, wait_for_ready=True
            )
        assert reply.status == health_pb2.HealthCheckResponse.NOT_SERVING
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=120)
    assert process.returncode == 0
    assert complaints([*read, *rest.splitlines()]) == [said]
