"""Cost of spans and logs, and the effect of a collector that fails.

`make bench-mesh ONLY="tracing collectors"`.

Meshes of null engines side by side, loaded in turn for a few seconds each: what the machine does to
one of them it does to the others. Ratios are of two meshes in the same round. Two meshes that are
alike differ by some 5 % for as long as they live, so `tracing` starts them anew several times.
"""

from __future__ import annotations

import json
import socket
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import mesh_process
import null_mesh
import processes
import span_collector
from callers import OK, Target
from load import Answers, Closed, Generator, generator, percentile
from report import Row

ROUNDS: Final = 6
"""Of each start, after one that is not counted."""
STARTS: Final = 3
"""Of the meshes of `tracing`, with half as many rounds each."""
CLIENTS: Final = 16
SECONDS: Final = 3.0
"""Of sixteen callers, each round."""
SEARCHES: Final = 250
"""Of one caller, each round."""

_PATH: Final = "/v1/search"
_COLLECTOR: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_OFF: Final = {
    "OTEL_SDK_DISABLED": "true",
    **{
        f"RAGLAN_{service}_LOG_LEVEL": "warning"
        for service in ("GATEWAY", "EMBEDDER", "RETRIEVER", "RERANKER", "GENERATOR", "INGESTER")
    },
}
_OFF_IS: Final = "off: OTEL_SDK_DISABLED=true, no tracer, logs from warning up; metrics stay"
_DROPPED: Final = 'raglan_spans_dropped_total{reason="collector"} '


@dataclass
class Measured:
    """Measurements of one mesh, an entry a round."""

    rates: list[float] = field(default_factory=list)
    """Searches a second of sixteen callers."""
    together_ms: list[list[float]] = field(default_factory=list)
    alone_ms: list[list[float]] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    """Of the gateway at the end of the round; the first is of the round that is not counted."""
    cpu_ms: list[dict[str, float]] = field(default_factory=list)
    """Processor time a search, by service."""
    refused: int = 0
    dropped: float = 0.0
    """Spans that the gateway counts as dropped at the end."""


def tracing() -> list[Row]:
    """The cost of everything on."""
    with _collector() as taken, generator() as callers:
        variants = {"on": {}, "off": _OFF, "off again": _OFF, "exported": {_COLLECTOR: taken}}
        measured: dict[str, Measured] = {name: Measured() for name in variants}
        for _ in range(STARTS):
            _measure(callers, variants, measured, rounds=ROUNDS // 2)
    on, off, again, exported = measured.values()
    return [
        *_cost_of("all on", on, off, targets=True),
        *_cost_of("off again, which is the noise", again, off, targets=False),
        *_cost_of("all on, and exported to a collector", exported, off, targets=False),
        *(_processor_time(name, each) for name, each in measured.items()),
        Row("searches refused, of all", "", sum(each.refused for each in measured.values())),
    ]


# --- Rows -----------------------------------------------------------------------------------------


def _cost_of(what: str, ours: Measured, off: Measured, *, targets: bool) -> Iterator[Row]:
    rates = [one / other for one, other in zip(ours.rates, off.rates, strict=True)]
    pairs = zip(ours.alone_ms, off.alone_ms, strict=True)
    added = [percentile(one, 50) - percentile(other, 50) for one, other in pairs]
    yield Row(
        f"searches a second of {CLIENTS} callers, {what} : off",
        "ratio",
        statistics.median(rates),
        ">= 0.96" if targets else None,
        note=f"{statistics.median(ours.rates):.0f} against {statistics.median(off.rates):.0f}, "
        f"rounds {min(rates):.2f} to {max(rates):.2f}; {_OFF_IS}",
        samples=rates,
        statistic="p50",
    )
    spent = [
        sum(one.values()) / sum(other.values())
        for one, other in zip(ours.cpu_ms, off.cpu_ms, strict=True)
    ]
    yield Row(
        f"processor time a search, {what} : off",
        "ratio",
        statistics.median(spent),
        note=f"rounds {min(spent):.2f} to {max(spent):.2f}",
        samples=spent,
        statistic="p50",
    )
    yield Row(
        f"p50 of one caller, {what}, added",
        "ms",
        statistics.median(added),
        "<= 0.5" if targets else None,
        note=f"rounds {min(added):.2f} to {max(added):.2f}",
        samples=added,
        statistic="p50",
    )


def _processor_time(name: str, measured: Measured) -> Row:
    spent = {
        service: statistics.median(each[service] for each in measured.cpu_ms)
        for service in measured.cpu_ms[0]
    }
    parts = ", ".join(f"{service} {ms:.2f}" for service, ms in spent.items())
    return Row(f"processor time a search, {name}", "ms", sum(spent.values()), note=parts)


def collectors() -> list[Row]:
    """Collectors that are gone or hang."""
    # The kernel accepts who connects here, and nobody ever answers.
    silent = socket.create_server(("127.0.0.1", 0), backlog=128)
    with silent, generator() as callers:
        down = f"http://127.0.0.1:{processes.free_port()}"
        hangs = f"http://127.0.0.1:{silent.getsockname()[1]}"
        variants = {
            "none": {},
            "none again": {},
            "down": {_COLLECTOR: down},
            "hanging": {_COLLECTOR: hangs},
        }
        measured = {name: Measured() for name in variants}
        _measure(callers, variants, measured, rounds=ROUNDS)
    none = measured["none"]
    rows = []
    for name in ("none again", "down", "hanging"):
        target = "<= 1.02" if variants[name] else None
        for who, of in (
            (f"{CLIENTS} callers", lambda mesh: mesh.together_ms),
            ("one caller", lambda mesh: mesh.alone_ms),
        ):
            rows.append(
                _p99(f"p99 of {who}, collector {name} : none", measured[name], none, of, target)
            )
    for name, each in measured.items():
        first, last = each.memory_mb[0], each.memory_mb[-1]
        told = f"{first:.0f} to {last:.0f} MB"
        more = (last - first) - (none.memory_mb[-1] - none.memory_mb[0])
        what = f"memory of the gateway, grown more than without a collector: {name}"
        rows.append(Row(what, "MB", more, "<= 20" if variants[name] else None, note=told))
        if variants[name]:
            rows.append(
                Row(f"spans dropped at the gateway and counted: {name}", "", each.dropped, ">= 1")
            )
    return rows


def _p99(
    what: str,
    ours: Measured,
    none: Measured,
    of: Callable[[Measured], list[list[float]]],
    target: str | None,
) -> Row:
    rounds = [
        percentile(one, 99) / percentile(other, 99)
        for one, other in zip(of(ours), of(none), strict=True)
    ]
    noise = "" if target else "; the noise, as both are the same"
    mine, others = (
        percentile([ms for each in of(mesh) for ms in each], 99) for mesh in (ours, none)
    )
    return Row(
        what,
        "ratio",
        statistics.median(rounds),
        target,
        note=f"rounds {min(rounds):.2f} to {max(rounds):.2f}; "
        f"{mine:.1f} against {others:.1f} ms over all{noise}",
        samples=rounds,
        statistic="p50",
    )


# --- Loads ----------------------------------------------------------------------------------------


class _Mesh:
    """A running mesh, and what it has shown."""

    def __init__(
        self,
        mesh: mesh_process.Mesh,
        measured: Measured,
        callers: Generator,
        numbers: Iterator[int],
    ) -> None:
        self.measured = measured
        self._mesh = mesh
        self._callers = callers
        self._numbers = numbers
        self._target = Target("http", null_mesh.port(mesh), _PATH)

    def round(self, *, counted: bool) -> None:
        """Sixteen callers, then one."""
        before = null_mesh.cpu_seconds(self._mesh)
        together = self._load(Closed(self._target, self._queries(5_000), CLIENTS, seconds=SECONDS))
        alone = self._load(Closed(self._target, self._queries(SEARCHES), 1))
        after = null_mesh.cpu_seconds(self._mesh)
        found = self.measured
        found.memory_mb.append(processes.resident_mb(self._mesh.pid("gateway"))[0])
        if not counted:
            return
        found.rates.append(together.count(OK) / together.seconds)
        found.together_ms.append(together.took_ms())
        found.alone_ms.append(alone.took_ms())
        found.refused += len(together.status) - together.count(OK)
        searches = together.count(OK) + alone.count(OK)
        found.cpu_ms.append({n: (after[n] - before[n]) * 1e3 / searches for n in after})

    def ended(self) -> None:
        """Read the counters."""
        with self._mesh.client() as client:
            lines = client.get("/metrics").text.splitlines()
        found = [line.removeprefix(_DROPPED) for line in lines if line.startswith(_DROPPED)]
        self.measured.dropped = sum(map(float, found))

    def _load(self, load: Closed) -> Answers:
        (answers,) = self._callers.run(load)
        return answers

    def _queries(self, count: int) -> list[bytes]:
        # Texts that the embedder has not seen.
        return [
            json.dumps({"query": f"What does stage {next(self._numbers)} cost?"}).encode()
            for _ in range(count)
        ]


def _measure(
    callers: Generator,
    variants: Mapping[str, Mapping[str, str]],
    measured: Mapping[str, Measured],
    *,
    rounds: int,
) -> None:
    """Rounds over a mesh for each of `variants`, begun with another one each time."""
    numbers = iter(range(10**9))
    with ExitStack() as running:
        meshes = {
            name: _Mesh(
                running.enter_context(null_mesh.running(**variables)),
                measured[name],
                callers,
                numbers,
            )
            for name, variables in variants.items()
        }
        names = list(meshes)
        for number in range(rounds + 1):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                meshes[name].round(counted=number > 0)
        for mesh in meshes.values():
            mesh.ended()


@contextmanager
def _collector() -> Iterator[str]:
    """A collector that takes everything, as a process of its own; its address."""
    port = processes.free_port()
    command = [sys.executable, str(Path(span_collector.__file__)), str(port)]
    with processes.process("the collector", command, {}, lambda: _listens(port)):
        yield f"http://127.0.0.1:{port}"


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
