"""Encoders that are slower or faster than this machine's: no test may depend on their speed.

RAGLAN_TEST_ENCODER_PACE=slow has every batch take four times as long. `fast` answers each text
that was encoded in the run before from a file, in no time.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raglan.scheduling.dispatcher import Pool

Stream = Callable[[Sequence[Any]], Sequence[Any]]
SLOWER = 4


@contextmanager
def applied(memory: Path) -> Iterator[None]:
    """Pace every stream of a device that is made meanwhile, as the variable asks.

    Args:
        memory: A folder for what `fast` remembers, the same one in each run.
    """
    pace = os.environ.get("RAGLAN_TEST_ENCODER_PACE", "")
    init = Pool.__init__

    def paced(self: Any, streams: Sequence[Stream], *args: Any) -> None:
        init(self, [_paced(pace, stream, memory) for stream in streams], *args)

    if pace:
        Pool.__init__ = paced  # type: ignore[method-assign, assignment]
    yield
    Pool.__init__ = init  # type: ignore[method-assign]


def _paced(pace: str, stream: Stream, memory: Path) -> Stream:
    def slow(batch: Sequence[Any]) -> Sequence[Any]:
        begun = time.monotonic()
        results = stream(batch)
        time.sleep((SLOWER - 1) * (time.monotonic() - begun))
        return results

    def fast(batch: Sequence[Any]) -> Sequence[Any]:
        # Another test may use another model.
        test = os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]
        keys = [hashlib.sha256(pickle.dumps((test, item))).hexdigest() for item in batch]
        files = [memory / key for key in keys]
        if not all(file.exists() for file in files):
            for file, result in zip(files, stream(batch), strict=True):
                partial = file.with_suffix(f".{os.getpid()}")
                partial.write_bytes(pickle.dumps(result))
                partial.replace(file)
        return [pickle.loads(file.read_bytes()) for file in files]

    return {"slow": slow, "fast": fast}[pace]
