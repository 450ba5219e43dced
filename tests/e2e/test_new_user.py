"""A new user: a clean clone, an empty home folder, the README's words."""

from __future__ import annotations

import json
import os
import re
import shlex
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


def commands(section: str) -> list[str]:
    """Commands of the README's `section` that a user types into a second terminal."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    begun = text.index(f"\n## {section}\n")
    blocks = re.findall(r"```sh\n(.*?)```", text[begun : text.index("\n## ", begun + 1)], re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith(("raglan ", "curl "))]


def test_the_quickstart_of_the_readme(clone: Clone) -> None:
    """Its commands as they stand there, in its order; only the port is this mesh's."""
    shown = {}
    for command in [*commands("Quickstart"), *commands("Ask over REST")]:
        words = shlex.split(command.replace("8080", clone.environment["RAGLAN_GATEWAY_PORT"]))
        words[0] = str(clone.folder / ".venv/bin/raglan") if words[0] == "raglan" else words[0]
        done = subprocess.run(
            words,
            cwd=clone.folder,
            env=clone.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        shown[words[1]] = done.stdout
    *_, status, reply = shown.values()
    assert list(shown)[:3] == ["ingest", "ask", "status"]
    assert "RAGLAN_RERANKER_DEVICE=cuda:1" in shown["ask"]
    assert "[1]" in shown["ask"]
    assert "docs/devices.md" in shown["ask"]
    assert "serving" in status
    assert json.loads(reply)["citations"][0]["document_id"] == "docs/devices.md"
    found = clone.raglan("search", "retry budget", "-c", "handbook", "--json")
    assert json.loads(found.stdout)["passages"]


def test_status_shows_every_process_as_json(clone: Clone) -> None:
    status = json.loads(clone.raglan("status", "--json").stdout)
    assert {service["service"] for service in status["services"]} == {
        "gateway", "embedder", "retriever", "reranker", "generator", "ingester",
        "tracer",
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
