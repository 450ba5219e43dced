"""A mesh of real processes on loopback, with the levers that make it fail.

A gateway before two or more replicas of each service, with engines that cost nothing, each on a
known port. Services are started directly: a supervisor would repair what a test has broken.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import mesh_process
import ports
import psutil
from faults import figures
from faults.open_loop import Options, Record
from faults.process import Process, python_module
from prometheus_client.parser import text_string_to_metric_families

SERVICES = ("embedder", "retriever", "reranker", "generator")
_NULL = {
    "embedder": {"RAGLAN_EMBEDDER_ENGINE": "null"},
    "retriever": {"RAGLAN_RETRIEVER_STORE": "null"},
    "reranker": {"RAGLAN_RERANKER_ENGINE": "null"},
    "generator": {
        "RAGLAN_GENERATOR_ENGINE": "null",
        "RAGLAN_GENERATOR_NULL_TOKENS": "12",
        "RAGLAN_GENERATOR_NULL_FIRST_TOKEN_MS": "20",
        "RAGLAN_GENERATOR_NULL_TOKEN_MS": "2",
    },
}
START_S = 60.0
SETTLE_S = 30.0


@dataclass(frozen=True)
class Setup:
    """How a mesh differs from the usual one. Rows with the same setup share a mesh."""

    spare: tuple[tuple[str, int], ...] = ()
    """(service, how many) more replicas, which the gateway is not told of; not started."""
    single: tuple[str, ...] = ()
    """Services that have one replica, not two."""
    variables: tuple[tuple[str, str, str], ...] = ()
    """(service, variable, value), the gateway's too."""
    proxied: tuple[str, ...] = ()
    """Services whose first replica stands behind a proxy that can swallow packets."""
    redis: bool = False
    max_tokens: int = 12
    """Of an answer that the load asks for."""
    questions: int = 0
    """How many different queries the load asks. 0: no two are alike, and the gateway keeps no
    answers for later, because a cache that fills up looks like a leak."""
    clock: bool = False
    """Whether the wall clock of every process can be stepped."""


@dataclass(frozen=True)
class Footprint:
    """What the gateway holds."""

    tasks: float
    descriptors: int
    resident_bytes: int


@dataclass
class Load:
    """A load that runs."""

    process: asyncio.subprocess.Process
    path: Path
    seed: int

    def records(self) -> list[Record]:
        """What has had its outcome so far."""
        return figures.read(self.path)

    async def rate(self, per_s: float) -> None:
        """Change the arrivals."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"rate {per_s}\n".encode())
        await self.process.stdin.drain()

    async def stop(self) -> list[Record]:
        """No more arrivals; every outcome."""
        assert self.process.stdin is not None
        if self.process.returncode is None:
            self.process.stdin.close()
            await asyncio.wait_for(self.process.wait(), 60)
        assert self.process.returncode == 0, f"the load ended with {self.process.returncode}"
        return self.records()


@dataclass
class Bed:
    """The mesh. `await start()`, then `stop()`."""

    folder: Path
    setup: Setup = Setup()
    services: dict[str, list[Process]] = field(default_factory=dict)
    others: dict[str, Process] = field(default_factory=dict)
    """Redis, proxies."""
    gateway: Process = field(init=False)
    _started: int = 0
    _loads: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.inject({})
        self.step_clock(0)
        for service in SERVICES:
            count = self.listed(service) + dict(self.setup.spare).get(service, 0)
            self.services[service] = [self._replica(service, number) for number in range(count)]
        for service in self.setup.proxied:
            self._add_proxy(service)
        if self.setup.redis:
            self._add_redis()
        for service in SERVICES:
            self.list_replicas(service, self.listed(service))
        self._listening = socket.create_server(("127.0.0.1", ports.free_port()), backlog=1024)
        self.gateway = self.new_gateway()

    # --- Start and stop ---------------------------------------------------------------------------

    async def start(self) -> None:
        """Start every process and wait until the gateway sees all of them serve."""
        for process in self.processes():
            process.start()
        self.gateway.start()
        await self.until(self.all_serving, START_S, "all replicas serve")

    def stop(self) -> None:
        """Kill everything."""
        for process in (self.gateway, *self.others.values(), *chain(*self.services.values())):
            process.kill()
        self._listening.close()

    async def repair(self) -> None:
        """Undo every fault, and wait until all is well."""
        self.inject({})
        self.step_clock(0)
        for process in (*self.processes(), self.gateway):
            process.send(signal.SIGCONT)
            process.start()
        await self.until(self.all_serving, START_S, "all replicas serve again")

    def listed(self, service: str) -> int:
        """How many replicas of a service the gateway is told of at first."""
        return 1 if service in self.setup.single else 2

    def processes(self) -> list[Process]:
        """All but the gateway and the spare ones; those first that others depend on."""
        replicas = [self.services[service][: self.listed(service)] for service in SERVICES]
        return [*self.others.values(), *(process for each in replicas for process in each)]

    async def all_serving(self) -> bool:
        """Whether every replica that the gateway knows of serves, as the gateway sees it."""
        async with httpx.AsyncClient(timeout=5) as client:
            status = (await client.get(f"{self.url}/v1/status")).json()
        seen = [each["state"] for each in status["services"] if each["service"] in SERVICES]
        return len(seen) == self._listed_now() and set(seen) == {"serving"}

    async def answers(self, gateway: Process) -> bool:
        """Whether it is this gateway that answered: two may share the socket for a while."""
        async with httpx.AsyncClient(timeout=5) as client:
            status = (await client.get(f"{self.url}/v1/status")).json()
        (pid,) = [each["pid"] for each in status["services"] if each["service"] == "gateway"]
        return bool(pid == gateway.pid)

    async def until(
        self, condition: Callable[[], Awaitable[bool]], within_s: float, what: str
    ) -> float:
        """Wait for an async `condition`; the seconds it took."""
        begun = time.monotonic()
        while time.monotonic() - begun < within_s:
            try:
                if await condition():
                    return time.monotonic() - begun
            except (httpx.HTTPError, OSError):
                pass
            await asyncio.sleep(0.02)
        raise AssertionError(f"not within {within_s:g} s: {what}; see {self.folder}")

    # --- What can be done to it -------------------------------------------------------------------

    def inject(self, faults: Mapping[str, Any]) -> None:
        """Put RAGLAN_FAULTS of the gateway in force; {} ends them."""
        path = self.folder / "faults.json"
        written = path.with_suffix(".new")
        written.write_text(json.dumps({"seed": 1, **faults}))
        written.replace(path)

    def step_clock(self, seconds: int) -> None:
        """Move the wall clock of every process from now on."""
        (self.folder / "clock").write_text(f"{seconds:+d}s\n")

    def list_replicas(self, service: str, count: int) -> None:
        """Tell the gateway of the first `count` replicas of a service."""
        lines = [self._behind_proxy(process) for process in self.services[service][:count]]
        path = self.folder / f"{service}.addresses"
        written = path.with_suffix(".new")
        written.write_text("\n".join(lines) + "\n")
        written.replace(path)

    def address(self, service: str, number: int) -> str:
        """Of a replica, as the gateway knows it."""
        return self._behind_proxy(self.services[service][number])

    def new_gateway(self) -> Process:
        """A gateway that listens on the same socket as the last; not started."""
        self._started += 1
        variables = {
            "RAGLAN_GATEWAY_PORT": str(self.port),
            "RAGLAN_GATEWAY_LISTEN_FD": str(self._listening.fileno()),
            "RAGLAN_GATEWAY_LOG_FORMAT": "json",
            "RAGLAN_GATEWAY_INGESTER_ADDRESS": "127.0.0.1:1",
            "RAGLAN_FAULTS": f"@{self.folder / 'faults.json'}",
            # So few that there are as many before a fault as after it: filling up is no leak.
            "RAGLAN_TRACE_SPANS": "2000",
            **mesh_process.UNCACHED,
            **{
                f"RAGLAN_GATEWAY_{service.upper()}_ADDRESS": (
                    f"@{self.folder / f'{service}.addresses'}"
                )
                for service in SERVICES
            },
        }
        if not self.setup.questions:
            variables["RAGLAN_GATEWAY_STALE_ANSWER_S"] = "0"
        if "redis" in self.others:
            variables["RAGLAN_GATEWAY_REDIS_URL"] = f"redis://{self.others['redis'].address}/0"
        return Process(
            f"gateway-{self._started}",
            python_module("raglan_gateway"),
            variables | self._variables("gateway"),
            self.folder / "gateway.log",
            self.port,
            pass_fds=(self._listening.fileno(),),
        )

    # --- What can be seen of it -------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The gateway's."""
        return int(self._listening.getsockname()[1])

    @property
    def url(self) -> str:
        """The gateway's."""
        return f"http://127.0.0.1:{self.port}"

    async def metrics(self, replica: Process | None = None) -> dict[tuple[str, str], float]:
        """Of a replica, or the gateway's: (name, labels as "a=1,b=2") -> value."""
        port = self.port if replica is None else metrics_port(replica)
        async with httpx.AsyncClient(timeout=5) as client:
            text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
        return read_metrics(text)

    async def footprint(self) -> Footprint:
        """What the gateway holds now."""
        metrics = await self.metrics()
        process = psutil.Process(self.gateway.pid)
        return Footprint(
            tasks=metrics.get(("raglan_gateway_tasks", ""), float("nan")),
            descriptors=process.num_fds(),
            resident_bytes=process.memory_info().rss,
        )

    def events(self, name: str, since: float = 0.0) -> list[dict[str, Any]]:
        """The gateway's log lines with this text from `since` on; `at` is monotonic time."""
        ahead_s = time.time() - time.monotonic()
        found = []
        for line in (self.folder / "gateway.log").read_text().splitlines():
            if f'"{name}"' not in line:
                continue
            event = json.loads(line)
            at = datetime.datetime.fromisoformat(event["timestamp"]).timestamp() - ahead_s
            if event["event"] == name and at >= since:
                found.append(event | {"at": at})
        return found

    def options(self, *, seed: int, rate: float) -> Options:
        """The usual load on this mesh."""
        return Options(
            port=self.port,
            seed=seed,
            rate=rate,
            max_tokens=self.setup.max_tokens,
            questions=self.setup.questions,
        )

    @asynccontextmanager
    async def load(self, options: Options) -> AsyncIterator[Load]:
        """A load in a process of its own, stopped at the end."""
        self._loads += 1
        path = self.folder / f"load-{self._loads}.jsonl"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "faults.open_loop", json.dumps(asdict(options)), str(path)),
            stdin=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
        )
        load = Load(process, path, options.seed)
        try:
            yield load
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    # --- How it is put together -------------------------------------------------------------------

    def _replica(self, service: str, number: int) -> Process:
        prefix = f"RAGLAN_{service.upper()}"
        port = ports.free_port()
        variables = {
            f"{prefix}_PORT": str(port),
            f"{prefix}_METRICS_PORT": str(ports.free_port()),
            f"{prefix}_LOG_FORMAT": "json",
            **_NULL[service],
        }
        name = f"{service}-{number}"
        return Process(
            name,
            python_module(f"raglan_{service}"),
            variables | self._variables(service),
            self.folder / f"{name}.log",
            port,
        )

    def _variables(self, service: str) -> dict[str, str]:
        own = {name: value for to, name, value in self.setup.variables if to == service}
        if self.setup.clock:
            own |= {
                "LD_PRELOAD": "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
                "FAKETIME_TIMESTAMP_FILE": str(self.folder / "clock"),
                # Read at every look at the clock, the file would cost most of the time.
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        return own

    def _add_proxy(self, service: str) -> None:
        port = ports.free_port()
        script = Path(__file__).with_name("black_hole.py")
        command = [sys.executable, str(script), str(port), str(self.services[service][0].port)]
        name = f"proxy-{service}"
        self.others[name] = Process(name, command, {}, self.folder / f"{name}.log", port)

    def _add_redis(self) -> None:
        port = ports.free_port()
        command = ["redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1"]
        self.others["redis"] = Process("redis", command, {}, self.folder / "redis.log", port)

    def _behind_proxy(self, process: Process) -> str:
        proxy = self.others.get(f"proxy-{process.name.removesuffix('-0')}")
        return proxy.address if proxy else process.address

    def _listed_now(self) -> int:
        files = (self.folder / f"{service}.addresses" for service in SERVICES)
        return sum(len(file.read_text().split()) for file in files)


def metrics_port(replica: Process) -> int:
    """Where a service tells its metrics."""
    return int(next(v for k, v in replica.variables.items() if k.endswith("_METRICS_PORT")))


def read_metrics(text: str) -> dict[tuple[str, str], float]:
    """Prometheus' text format: (name, labels as "a=1,b=2") -> value."""
    return {
        (sample.name, ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
