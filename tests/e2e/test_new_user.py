"""A new user: a clean clone, an empty home folder, the README's words."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mesh_process
import ports
import psutil
import pytest

REPOSITORY = Path(__file__).parents[2]
INSTALL_S = 900


@dataclass(frozen=True)
class Clone:
    """A clone whose mesh runs."""

    folder: Path
    environment: dict[str, str]
    make: subprocess.Popen[bytes]
    log: Path

    def raglan(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Type a command."""
        return subprocess.run(
            [str(self.folder / ".venv/bin/raglan"), *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )


def _heed_ctrl_c() -> None:
    # A shell that starts this in the background has it ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    folder = tmp_path_factory.mktemp("user")
    subprocess.run(["git", "clone", "--quiet", REPOSITORY, folder / "raglan"], check=True)
    port = ports.free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAGLAN_")}
    home = folder / "home"
    home.mkdir()
    environment = kept | {"HOME": str(home), "RAGLAN_GATEWAY_PORT": str(port)}
    log = folder / "run.log"
    with log.open("wb") as output:
        make = subprocess.Popen(
            ["make", "run"],
            cwd=folder / "raglan",
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_heed_ctrl_c,
        )
        try:
            mesh_process.until(
                lambda: "stops everything" in log.read_text() or make.poll() is not None,
                within_s=INSTALL_S,
                what="make run shows its screen",
            )
            assert make.poll() is None, log.read_text()
            yield Clone(folder / "raglan", environment, make, log)
        finally:
            if make.poll() is None:
                os.killpg(make.pid, signal.SIGKILL)
            make.wait()
            shutil.rmtree(folder / "raglan" / ".venv", ignore_errors=True)


@pytest.mark.timeout(INSTALL_S + 60)
def test_the_screen_names_the_api_the_collection_and_three_commands(clone: Clone) -> None:
    screen = clone.log.read_text()
    assert f"http://127.0.0.1:{clone.environment['RAGLAN_GATEWAY_PORT']}/docs" in screen
    assert "default" in screen
    for command in ("raglan ingest docs/", "raglan ask", "raglan search"):
        assert command in screen


def test_documents_go_in_and_a_cited_answer_comes_out(clone: Clone) -> None:
    took_in = clone.raglan("ingest", "docs/", "--collection", "handbook")
    assert took_in.returncode == 0, took_in.stdout + took_in.stderr
    asked = clone.raglan("ask", "How do I pin the reranker to the second GPU?", "-c", "handbook")
    assert asked.returncode == 0, asked.stderr
    assert "RAGLAN_RERANKER_DEVICE=cuda:1" in asked.stdout
    assert "[1]" in asked.stdout
    assert "docs/devices.md" in asked.stdout
    found = clone.raglan("search", "retry budget", "-c", "handbook", "--json")
    assert json.loads(found.stdout)["passages"]


def test_status_shows_every_process_as_json(clone: Clone) -> None:
    status = json.loads(clone.raglan("status", "--json").stdout)
    assert {service["service"] for service in status["services"]} == {
        "gateway", "embedder", "retriever", "reranker", "generator", "ingester",
    }  # fmt: skip


def test_a_failed_document_makes_ingest_exit_1_and_names_the_reason(
    clone: Clone, tmp_path: Path
) -> None:
    (tmp_path / "empty.md").write_text("")
    failed = clone.raglan("ingest", str(tmp_path / "empty.md"), "--collection", "handbook")
    assert failed.returncode == 1
    assert "empty" in failed.stdout + failed.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("ask", "What?", "-c", "nothing-here"), "nothing-here"),
        (("ingest", "no-such-folder"), "no-such-folder"),
        (("ask", "What?", "--url", "http://127.0.0.1:1"), "raglan up"),
        (("up", "--replicas", "retriever=2"), "retriever"),
        (("eval", "docs"), "corpus.jsonl"),
    ],
)
def test_a_mistake_is_answered_with_a_sentence(
    clone: Clone, arguments: tuple[str, ...], says: str
) -> None:
    done = clone.raglan(*arguments)
    assert done.returncode != 0
    assert says in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_ctrl_c_leaves_no_process_behind(clone: Clone) -> None:
    family = psutil.Process(clone.make.pid).children(recursive=True)
    assert len(family) >= 7
    os.killpg(clone.make.pid, signal.SIGINT)
    clone.make.wait(60)
    _, left = psutil.wait_procs(family, timeout=10)
    assert left == []
