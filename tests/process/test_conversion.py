"""Files made once from a model: whole or not at all. What makes them is a stand-in here."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from raglan.encoders import conversion
from raglan.encoders.model import EncoderModel
from raglan.errors import Unavailable

WHOLE = "target.write_bytes(b'whole')"
HALF = "target.write_bytes(b'half')"


@pytest.fixture
def model(tmp_path: Path) -> EncoderModel:
    folder = tmp_path / "model"
    folder.mkdir()
    return EncoderModel("m", folder, "0123456789ab", 12, 64, "mean", plain=True)


class Converter:
    """A module on the path that runs a program of the test's, and the file it should make."""

    def __init__(self, folder: Path, model: EncoderModel) -> None:
        self.module = folder / "a_converter.py"
        self.runs = folder / "runs"
        self.target = folder / "cache" / "made-v1"
        self.model = model
        self.stopped = threading.Event()

    def does(self, program: str) -> None:
        self.module.write_text(
            "import os, sys, time\n"
            "from pathlib import Path\n"
            f"Path({str(self.runs)!r}).open('a').write('x')\n"
            "target = Path(sys.argv[2])\n"
            f"{program}\n"
        )

    def make(self) -> Path:
        return conversion.made_once(
            self.model, self.target, "a_converter", "more", stopped=self.stopped
        )

    @property
    def counted(self) -> int:
        return len(self.runs.read_text()) if self.runs.exists() else 0


@pytest.fixture
def converter(tmp_path: Path, model: EncoderModel, monkeypatch: pytest.MonkeyPatch) -> Converter:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return Converter(tmp_path, model)


def leftovers(converter: Converter) -> list[str]:
    return [file.name for file in converter.target.parent.glob("*.partial")]


def test_a_file_is_made_once(converter: Converter) -> None:
    converter.does(WHOLE)
    assert converter.make().read_bytes() == b"whole"
    assert converter.make() == converter.target
    assert converter.counted == 1


def test_what_is_made_may_be_a_folder(converter: Converter) -> None:
    converter.does("target.mkdir(); (target / 'a').write_text(sys.argv[3])")
    assert (converter.make() / "a").read_text() == "more"


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "sys.exit(3)", "raise RuntimeError"])
def test_a_half_written_file_is_never_used(converter: Converter, end: str) -> None:
    converter.does(f"{HALF}; {end}")
    with pytest.raises(Unavailable, match="conversion of 'm' failed"):
        converter.make()
    assert not converter.target.exists()
    assert leftovers(converter) == []
    converter.does(WHOLE)
    assert converter.make().read_bytes() == b"whole"


def test_what_a_killed_service_left_behind_is_removed(converter: Converter) -> None:
    left = converter.target.with_name("made-v1.0123abcd.partial")
    left.parent.mkdir()
    left.write_bytes(b"half")
    converter.does(WHOLE)
    assert converter.make().read_bytes() == b"whole"
    assert leftovers(converter) == []


def test_two_that_start_together_make_it_once(converter: Converter) -> None:
    converter.does(f"time.sleep(0.2); {WHOLE}")
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(converter.make().read_bytes()))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == [b"whole"] * 3
    assert converter.counted == 1


def test_a_stop_ends_the_process_at_once(converter: Converter) -> None:
    started = converter.module.with_name("started")
    converter.does(f"Path({str(started)!r}).touch(); {HALF}; time.sleep(100)")
    failures: list[str] = []

    def make() -> None:
        try:
            converter.make()
        except Unavailable as error:
            failures.append(str(error))

    thread = threading.Thread(target=make)
    thread.start()
    limit = time.monotonic() + 60
    while not started.exists() and time.monotonic() < limit:
        time.sleep(0.01)
    converter.stopped.set()
    thread.join(50)
    assert not thread.is_alive(), "it waited for the process, which sleeps for 100 s"
    assert "was abandoned" in failures[0]
    assert not converter.target.exists()
    assert leftovers(converter) == []


def test_a_stop_ends_the_wait_for_another_process(converter: Converter) -> None:
    converter.does(WHOLE)
    converter.target.parent.mkdir()
    converter.stopped.set()
    with (
        conversion.FileLock(f"{converter.target}.lock"),
        pytest.raises(Unavailable, match="was abandoned"),
    ):
        converter.make()
    assert converter.counted == 0


def test_without_a_library_the_error_says_what_to_install(converter: Converter) -> None:
    converter.does("import a_torch_that_is_not_there")
    with pytest.raises(Unavailable, match=r"raglan\[torch\].*onnx/model\.onnx"):
        converter.make()


def test_a_cache_that_cannot_be_written_is_named(converter: Converter, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("not a folder")
    with pytest.raises(Unavailable, match="model cache .* cannot be used"):
        converter.make()


def test_stages_reach_the_log_once_and_a_terminal_at_each_step(
    converter: Converter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    converter.does(
        "from raglan.encoders.conversion import report\n"
        "print('chatter of a library')\n"
        "report('counting', 1, 3); report('counting', 2, 3); time.sleep(0.5)\n"
        f"{WHOLE}"
    )
    converter.make()
    shown = capsys.readouterr()
    assert "m: counting 2/3 (" in shown.err
    assert shown.out.count("stage=counting") + shown.out.count("counting'") == 1
    assert "chatter" not in shown.out + shown.err


@pytest.mark.parametrize("damage", [b"wh", b"whale", b""])
def test_a_damaged_file_is_made_again(converter: Converter, damage: bytes) -> None:
    converter.does(WHOLE)
    converter.make().write_bytes(damage)
    assert converter.make().read_bytes() == b"whole"
    assert converter.counted == 2


def test_a_damaged_folder_is_made_again(converter: Converter) -> None:
    converter.does("target.mkdir(); (target / 'a').write_text('1'); (target / 'b').write_text('2')")
    (converter.make() / "b").unlink()
    assert sorted(file.name for file in converter.make().iterdir()) == ["a", "b"]
