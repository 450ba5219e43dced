import subprocess
import sys
from types import SimpleNamespace

import pytest
from raglan_cli.__main__ import main


@pytest.fixture
def started(monkeypatch):
    """Command lines that would have been started; each ends with status 2."""
    commands = []

    def run(command, **_):
        commands.append(command)
        return SimpleNamespace(returncode=2)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["raglan", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_the_comparison_runs_in_a_process_of_its_own_and_gives_its_status(started, monkeypatch):
    assert run(monkeypatch, "parity", "embedder", "--a", "onnx", "--b-precision", "f32") == 2
    (command,) = started
    assert command[1:5] == ["-m", "raglan_embedder.parity", "--a", "onnx"]
    assert command[command.index("--b") + 1] == "torch"
    assert command[command.index("--b-precision") + 1] == "f32"


def test_without_the_embedder_it_says_what_to_install(started, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(monkeypatch, "parity", "embedder") == 1
    assert "pip install raglan-embedder" in capsys.readouterr().err
    assert started == []
