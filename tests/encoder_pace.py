"""Encoders that are slower or faster than this machine's: no test may depend on their speed.

RAGLAN_TEST_ENCODER_PACE=slow has every batch take four times as long. `fast` answers each text
that was encoded in the run before from a file, in no time.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

Stream = Callable[[Sequence[Any]], Sequence[Any]]
SLOWER = 4


@contextmanager
def applied(memory: Path) -> Iterator[None]:
    """Pace the streams of engines that are loaded meanwhile, as the variable asks.

    What a test puts around a stream, to hold it or to make it fail, is outside and still happens.

    Args:
        memory: A folder for what `fast` remembers, the same one in each run.
    """
    pace = os.environ.get("RAGLAN_TEST_ENCODER_PACE", "")
    if not pace:
        yield
        return
    # Here, because the environment of vLLM's tests has no encoders.
    from raglan.encoders import cross_encoder
    from raglan_embedder import engines

    load_engine, load_encoder = engines.load, cross_encoder.load

    def paced(load: Callable[..., Any]) -> Callable[..., Any]:
        def loaded(*args: Any, **options: Any) -> Any:
            found = load(*args, **options)
            names = [name for name in ("streams", "bulk_streams") if hasattr(found, name)]
            return replace(
                found,
                **{
                    name: tuple(_paced(pace, each, memory) for each in getattr(found, name))
                    for name in names
                },
            )

        return loaded

    engines.load, cross_encoder.load = paced(load_engine), paced(load_encoder)
    yield
    engines.load, cross_encoder.load = load_engine, load_encoder


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
                # Two streams may be warmed up with one text at the same time.
                partial = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
                partial.write_bytes(pickle.dumps(result))
                partial.replace(file)
        return [pickle.loads(file.read_bytes()) for file in files]

    return {"slow": slow, "fast": fast}[pace]
