"""The exported file: made once, whole or not at all. The exporter is a stand-in here."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from raglan.encoders import export
from raglan.encoders.model import EncoderModel
from raglan.errors import Unavailable

REAL_RUN = subprocess.run


class Exporter:
    """Stands in for the subprocess: runs a program of the test's, counts its runs."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.runs = 0

    def __call__(self, command: Sequence[str], **options: Any) -> Any:
        self.runs += 1
        return REAL_RUN([sys.executable, "-c", self.program, *command[3:]], **options)


@pytest.fixture
def model(tmp_path: Path) -> EncoderModel:
    folder = tmp_path / "model"
    folder.mkdir()
    return EncoderModel("m", folder, "0123456789ab", 12, 64, "mean", plain=True)


def use(monkeypatch: pytest.MonkeyPatch, program: str) -> Exporter:
    exporter = Exporter(f"import os, sys, time\nfrom pathlib import Path\n{program}")
    monkeypatch.setattr(subprocess, "run", exporter)
    return exporter


WHOLE = "Path(sys.argv[2]).write_bytes(b'whole')"


def test_a_file_is_made_once(
    model: EncoderModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = use(monkeypatch, WHOLE)
    first = export.onnx_file(model, tmp_path / "cache")
    assert first.read_bytes() == b"whole"
    assert export.onnx_file(model, tmp_path / "cache") == first
    assert exporter.runs == 1


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "sys.exit(3)", "raise RuntimeError"])
def test_a_half_written_export_is_never_used(
    model: EncoderModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    use(monkeypatch, f"Path(sys.argv[2]).write_bytes(b'half'); {end}")
    with pytest.raises(Unavailable, match="export of 'm' to ONNX failed"):
        export.onnx_file(model, tmp_path / "cache")
    use(monkeypatch, WHOLE)
    assert export.onnx_file(model, tmp_path / "cache").read_bytes() == b"whole"


def test_what_a_killed_service_left_behind_is_not_used(
    model: EncoderModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = use(monkeypatch, WHOLE)
    file = export.onnx_file(model, tmp_path / "cache")
    file.rename(file.with_suffix(".partial"))
    file.with_suffix(".partial").write_bytes(b"half")
    assert export.onnx_file(model, tmp_path / "cache").read_bytes() == b"whole"
    assert exporter.runs == 2


def test_two_that_start_together_export_once(
    model: EncoderModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = use(monkeypatch, f"time.sleep(0.2); {WHOLE}")
    found: list[bytes] = []

    def start() -> None:
        found.append(export.onnx_file(model, tmp_path / "cache").read_bytes())

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == [b"whole"] * 3
    assert exporter.runs == 1


@pytest.mark.parametrize("name", ["model.onnx", "onnx/model.onnx"])
def test_a_shipped_file_is_used_as_it_is(
    model: EncoderModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    exporter = use(monkeypatch, WHOLE)
    shipped = model.path / name
    shipped.parent.mkdir(exist_ok=True)
    shipped.write_bytes(b"shipped")
    assert export.onnx_file(model, tmp_path / "cache") == shipped
    assert exporter.runs == 0


def test_without_torch_the_error_says_what_to_install(
    model: EncoderModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, "import a_torch_that_is_not_there")
    with pytest.raises(Unavailable, match=r"raglan\[torch\].*onnx/model\.onnx"):
        export.onnx_file(model, tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_named(
    model: EncoderModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, WHOLE)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(Unavailable, match="model cache .* cannot be used"):
        export.onnx_file(model, tmp_path / "file")
