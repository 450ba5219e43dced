"""Records of evaluation and benchmark runs, kept for comparison.

One JSON line a run in `history.jsonl`. Figures of one machine are noise for another, so each names
the machine that it was measured on, and the file stays out of version control.
"""

from __future__ import annotations

import fcntl
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, FiniteFloat, ValidationError
from raglan import __version__

CHECKOUT: Final = Path(__file__).resolve().parents[2]

KEEP_DAYS: Final = 30
"""Default retention of a run in days (`RAGLAN_HISTORY_DAYS`)."""

MAX_SAMPLES: Final = 1_000
"""Of one figure; more are thinned."""

_LOCK_LIMIT_S: Final = 10.0

Better = Literal["lower", "higher"]

_LOWER: Final = frozenset({"s", "ms", "us", "ns", "B", "KB", "MB", "GB", "KiB", "MiB", "GiB"})


class Figure(BaseModel):
    """One figure of a run."""

    model_config = ConfigDict(frozen=True)

    what: str
    unit: str = ""
    value: FiniteFloat | None
    """None where none came back."""

    better: Better | None = None
    """None: it is shown, never judged."""

    statistic: str = "mean"
    """The statistic of `samples` in `value`: "mean", or a percentile such as "p95"."""

    samples: tuple[FiniteFloat, ...] = ()
    paired: bool = False
    """True if sample i is the same question in every run under the same conditions."""


class Record(BaseModel):
    """One run."""

    model_config = ConfigDict(frozen=True)

    at: AwareDatetime
    bench: str
    machine: str
    version: str
    commit: str | None = None
    """The commit of the checkout; with "+" and a digest where the files differ from it."""

    conditions: Mapping[str, str] = {}
    """Parameters of the run. Runs with different parameters are not compared."""

    figures: tuple[Figure, ...]

    @property
    def revision(self) -> str:
        """The measured revision: the commit, or the version outside of a checkout."""
        return self.commit or self.version


class Busy(OSError):
    """Somebody else has held the history for too long."""


def figure(
    what: str,
    unit: str,
    value: float,
    better: Better | None = None,
    *,
    samples: Sequence[float] = (),
    statistic: str = "mean",
    paired: bool = False,
) -> Figure:
    """A figure as it is kept: samples thinned to `MAX_SAMPLES` and rounded to five digits.

    Unpaired samples are thinned to equally spaced order statistics, which keeps every percentile.

    Args:
        what: name of the figure.
        unit: unit of `value` and `samples`.
        value: one that is not finite is kept as None.
        better: where it is None, the unit says: less time and memory, more of anything a second.
        samples: single measurements, if kept.
        statistic: how `value` is computed from `samples`.
        paired: true if sample i is the same question in every run.
    """
    finite = all(map(isfinite, samples))
    kept = list(samples) if paired else sorted(samples)
    if len(kept) > MAX_SAMPLES:
        kept = [kept[position * len(kept) // MAX_SAMPLES] for position in range(MAX_SAMPLES)]
    return Figure(
        what=what,
        unit=unit,
        value=float(f"{value:.6g}") if isfinite(value) else None,
        better=better or _better_by(unit),
        statistic=statistic,
        samples=tuple(float(f"{sample:.5g}") for sample in kept) if finite else (),
        paired=paired,
    )


def record(
    bench: str, figures: Sequence[Figure], conditions: Mapping[str, str] | None = None
) -> Record:
    """A run that ended now, on this machine, with the code as it lies here."""
    return Record(
        at=datetime.now(UTC).replace(microsecond=0),
        bench=bench,
        machine=machine(),
        version=__version__,
        commit=_commit(),
        conditions=dict(conditions or {}),
        figures=tuple(figures),
    )


def history_path() -> Path:
    """Return `$RAGLAN_HISTORY`, else `bench/results/history.jsonl` of the checkout."""
    given = os.environ.get("RAGLAN_HISTORY")
    return Path(given) if given else CHECKOUT / "bench" / "results" / "history.jsonl"


def keep_days() -> float:
    """`$RAGLAN_HISTORY_DAYS`, by default 30.

    Raises:
        ValueError: it is no number above 0; the text names it.
    """
    given = os.environ.get("RAGLAN_HISTORY_DAYS") or str(KEEP_DAYS)
    try:
        days = float(given)
    except ValueError:
        days = 0.0
    if not 0 < days < 1e5:
        raise ValueError(f"RAGLAN_HISTORY_DAYS is {given!r}; it takes a number of days above 0.")
    return days


def append(entry: Record, path: Path | None = None) -> Path:
    """Add `entry` to the history, and drop what is older than `keep_days`; returns the file.

    Safe beside other writers: each holds a lock on the folder, and the file is either appended to
    or replaced as a whole. Lines that a newer version has written are kept as they are.

    Raises:
        OSError: the file cannot be written, or another held its lock for 10 s (Busy).
        ValueError: `RAGLAN_HISTORY_DAYS` is not a number of days.
    """
    path = path or history_path()
    oldest = entry.at - timedelta(days=keep_days())
    path.parent.mkdir(parents=True, exist_ok=True)
    line = entry.model_dump_json(exclude_defaults=True).encode() + b"\n"
    with _locked(path.parent):
        lines = _lines_from(path, oldest)
        if lines is not None:
            _replace(path, b"".join(lines) + line)
            return path
        with path.open("ab") as file:
            if _torn(path):
                line = b"\n" + line
            file.write(line)
    return path


def read(path: Path | None = None) -> tuple[list[Record], list[str]]:
    """The runs, the oldest first, and a sentence for each line that is none.

    Raises:
        OSError: the file cannot be read. One that does not exist has no runs.
    """
    path = path or history_path()
    found: list[Record] = []
    skipped: list[str] = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            found.append(Record.model_validate_json(line))
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, problem["loc"]))
            reason = f"{where}: {problem['msg']}" if where else problem["msg"]
            skipped.append(f"{path}, line {number} is skipped: {reason}.")
    return sorted(found, key=lambda entry: entry.at), skipped


def commit_of(name: str) -> str | None:
    """Return the commit that git knows as `name`, or None."""
    return _git("rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}")


def machine() -> str:
    """Describe the machine of a measurement: hardware, system and interpreter.

    No host name: each container has its own.
    """
    processor, memory, gpus = platform.processor() or platform.machine(), "", ""
    if platform.system() == "Linux":
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        processor = models[0] if models else processor
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        memory = f", {size / 2**30:.0f} GiB"
        gpus = "".join(f", {name}" for name in _gpus())
    python = f"{platform.system()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} x {processor}{memory}{gpus}, {python}"


def _gpus() -> Iterator[str]:
    for each in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in each.read_text().splitlines():
            if line.startswith("Model:"):
                yield line.partition(":")[2].strip()


def _better_by(unit: str) -> Better | None:
    if unit.endswith("/s"):
        return "higher"
    return "lower" if unit in _LOWER else None


def _commit() -> str | None:
    """Return the checkout's commit; results do not count as changes: benchmarks write them."""
    head = _git("rev-parse", "HEAD")
    if head is None:
        return None
    changes = _git("diff", "HEAD", "--", ".", ":(exclude)bench/results")
    return f"{head}+{sha256(changes.encode()).hexdigest()[:8]}" if changes else head


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(CHECKOUT), *words],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone with `folder`. A lock on the file itself would be lost with its replacement."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        give_up = time.monotonic() + _LOCK_LIMIT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise Busy(f"{folder} has been locked for {_LOCK_LIMIT_S:g} s.") from None
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n") if path.exists() else []


class _Dated(BaseModel):
    """All that has to be known of a line to keep or drop it."""

    at: AwareDatetime


def _lines_from(path: Path, oldest: datetime) -> list[bytes] | None:
    """The lines to keep, those that are no JSON left out; None where there is none to drop.

    The oldest come first, so as a rule one line tells.
    """
    if not path.exists():
        return None
    with path.open("rb") as file:
        first = file.readline()
    with suppress(ValidationError):
        if not first or _Dated.model_validate_json(first).at >= oldest:
            return None
    return [line + b"\n" for line in _lines(path) if line.strip() and _stays(line, oldest)]


def _stays(line: bytes, oldest: datetime) -> bool:
    try:
        return _Dated.model_validate_json(line).at >= oldest
    except ValidationError as error:
        return error.errors(include_url=False)[0]["type"] != "json_invalid"


def _torn(path: Path) -> bool:
    """Return whether the last line is incomplete because its writer was killed."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _replace(path: Path, content: bytes) -> None:
    """Readers see the file before or after, never half of it."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
