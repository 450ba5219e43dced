"""Requests of every kind, each a trace of its own, to a mesh in which calls fail on purpose.

`Mixed` starts the mesh and sends them phase by phase: in each phase other faults are in force.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import mesh_process
import trace_expectations as expected
from raglan import errors
from trace_expectations import Outcome, Trace

REPLICAS: Final = ("embedder=2", "reranker=2", "generator=2")
VARIABLES: Final = {
    "RAGLAN_EMBEDDER_ENGINE": "null",
    "RAGLAN_RERANKER_ENGINE": "null",
    "RAGLAN_GENERATOR_ENGINE": "null",
    "RAGLAN_GENERATOR_NULL_TOKENS": "10",
    "RAGLAN_GENERATOR_NULL_TOKEN_MS": "10",
    "RAGLAN_TRACER_OTLP_PORT": "-1",
}
"""The index is a real one: only it knows that a collection does not exist."""

CALLERS: Final = 6
_LOOKS: Final = 4
"""Traces that are asked for at a time: as many as the gateway looks for."""
_LATE_S: Final = 4.0
"""How long spans may take to be there after their request has ended."""
_SETTLED_S: Final = 30.0
_WELL: Final = 5
"""Queries without a fallback, one after the other, after which a mesh counts as well again."""


@dataclass(frozen=True)
class Kind:
    """Requests that are alike."""

    name: str
    count: int
    path: str
    body: Mapping[str, Any] = field(default_factory=dict)
    ends_in: str = ""
    """The stage in which they fail, if they do."""
    leaves_after_s: float | None = None
    leaves_in_answer: bool = False
    """Whether their caller leaves after the second piece of the answer."""


@dataclass(frozen=True)
class Phase:
    """Kinds that are sent together while `faults` are in force."""

    kinds: Sequence[Kind]
    faults: Mapping[str, Any] = field(default_factory=dict)
    """As RAGLAN_FAULTS has them; "embedder#0" is the first replica of the embedder."""


def phases() -> tuple[Phase, ...]:
    """2,000 requests."""
    search, query = "/v1/search", "/v1/query"
    stream = {"stream": True}
    nowhere = {"collections": ["nowhere"]}
    refused, slow, hurry = {"error": "UNAVAILABLE"}, {"latency_ms": 800}, {"timeout_ms": 300}
    calm = (
        Kind("search", 320, search),
        Kind("search by words", 60, search, {"mode": "lexical", "rerank": False}),
        Kind("search by meaning", 60, search, {"mode": "dense"}),
        Kind("query", 200, query),
        Kind("stream", 210, query, stream),
        Kind("refused", 40, search, {"top_k": -1}),
        Kind("refused", 40, query, {"query": " "}),
        Kind("unknown collection", 40, search, nowhere, "retrieve"),
        Kind("unknown collection, streamed", 40, query, stream | nowhere, "retrieve"),
        Kind("left in the answer", 80, query, stream, "generate", leaves_in_answer=True),
    )
    return (
        Phase(calm),
        *(
            Phase(
                (Kind("hedged", 80, search), Kind("hedged", 40, query, stream)),
                {f"{service}#0": {"latency_ms": 150, "percent": 12}},
            )
            for service in ("embedder", "reranker")
        ),
        *(
            Phase(
                (Kind("retried", 40, query), Kind("retried", 40, query, stream)),
                {service: refused | {"percent": 12}},
            )
            for service in ("embedder", "reranker", "generator")
        ),
        Phase((Kind("retried", 60, search),), {"retriever": refused | {"percent": 6}}),
        *(
            Phase(
                (Kind("degraded", 20, query), Kind("degraded", 20, query, stream)),
                {service: {"error": "RESOURCE_EXHAUSTED"}},
            )
            for service in ("embedder", "reranker", "generator")
        ),
        *(
            Phase(
                (
                    Kind("too late", 30, query, hurry, stage),
                    Kind("too late", 20, query, hurry | stream, stage),
                ),
                {service: {"stall": True, "percent": percent}},
            )
            for stage, service, percent in (
                ("retrieve", "retriever", 25),
                ("generate", "generator", 60),
            )
        ),
        *(
            Phase(
                (
                    Kind("left", 15, query, {}, stage, leaves_after_s=0.4),
                    Kind("left", 15, query, stream, stage, leaves_after_s=0.4),
                ),
                {service: slow},
            )
            for stage, service in (
                ("embed", "embedder"),
                ("retrieve", "retriever"),
                ("rerank", "reranker"),
                ("generate", "generator"),
            )
        ),
        Phase(
            (Kind("broken off", 30, query, stream, "generate"),), {"generator": {"cut_after": 3}}
        ),
    )


@dataclass(frozen=True)
class Result:
    """A request, its trace, and what is wrong with that."""

    outcome: Outcome
    trace: Trace
    problems: Sequence[str]


class Mixed:
    """Sends requests to a mesh and fetches their traces."""

    def __init__(self, mesh: mesh_process.Mesh, faults: Path) -> None:
        self.mesh = mesh
        self._faults = faults
        self._numbers = iter(range(10**9))
        self._shuffled = random.Random(6)

    def upload(self, documents: int) -> Result:
        """Fill the default collection, in one job."""
        sent = [
            {"id": f"d{number}", "text": f"What stage {number} costs is {number} units. " * 5}
            for number in range(documents)
        ]
        outcome = Outcome("upload", *_ids(), "/v1/collections/default/documents", {}, 202)
        with self.mesh.client() as client:
            client.post("/v1/collections", json={"name": "default"})
            reply = client.post(
                outcome.path,
                json={"documents": sent},
                headers=_header(outcome.trace_id, outcome.span_id),
            )
            job = mesh_process.finished(client, reply.json()["job_id"])
            assert job["status"] == "succeeded", job

            def read() -> Result | None:
                trace = client.get(f"/v1/traces/{outcome.trace_id}").json()
                found = expected.job_problems(trace) if "spans" in trace else ["no trace"]
                return Result(outcome, trace, found) if not found or time.time() > late else None

            late = time.time() + _LATE_S
            result: Result = mesh_process.until(read, within_s=2 * _LATE_S, what="a job's trace")
        return result

    async def run(self, phase: Phase, part: float = 1.0, *, callers: int = CALLERS) -> list[Result]:
        """The phase's requests, or a `part` of them, at least one of each kind."""
        kinds = [kind for kind in phase.kinds for _ in range(max(1, round(kind.count * part)))]
        self._shuffled.shuffle(kinds)
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(base_url=self.mesh.url, timeout=60, limits=limits) as client:
            await self._settled(client)
            self._faults.write_text(json.dumps(self._of_replicas(phase.faults)))
            await asyncio.sleep(0.1)  # the gateway looks into the file every 50 ms
            asked = iter(kinds)

            async def caller() -> list[Outcome]:
                return [await self._ask(client, kind) for kind in asked]

            outcomes = await asyncio.gather(*(caller() for _ in range(callers)))
            self._faults.write_text("{}")
            looks = asyncio.Semaphore(_LOOKS)

            async def look(outcome: Outcome) -> Result:
                async with looks:
                    return await _traced(client, outcome)

            return await asyncio.gather(*(look(each) for some in outcomes for each in some))

    async def _ask(self, client: httpx.AsyncClient, kind: Kind) -> Outcome:
        trace_id, span_id = _ids()
        body = {"query": f"What does stage {next(self._numbers)} cost?", **kind.body}
        seen = _Seen()
        try:
            async with asyncio.timeout(kind.leaves_after_s):
                await seen.read(client, kind, body, _header(trace_id, span_id))
        except TimeoutError:
            seen.left = True
        return Outcome(
            *(kind.name, trace_id, span_id, kind.path, body, seen.status, seen.left),
            error=seen.error,
            degraded=[each["stage"] for each in seen.final.get("degraded", ())],
            timings_ms=seen.final.get("timings_ms", {}),
            ends_in=kind.ends_in,
        )

    async def _settled(self, client: httpx.AsyncClient) -> None:
        """Wait until queries need no fallback: breakers that were opened have closed again."""
        well, late = 0, time.monotonic() + _SETTLED_S
        while well < _WELL:
            assert time.monotonic() < late, "the mesh does not recover from its faults"
            query = f"Is stage {next(self._numbers)} well?"
            reply = await client.post("/v1/query", json={"query": query, "max_tokens": 1})
            well = well + 1 if reply.is_success and not reply.json()["degraded"] else 0
            await asyncio.sleep(0 if well else 0.2)

    def _of_replicas(self, faults: Mapping[str, Any]) -> dict[str, Any]:
        return {self._target(name): fault for name, fault in faults.items()}

    def _target(self, name: str) -> str:
        service, _, number = name.partition("#")
        if not number:
            return service
        replicas = [each for each in self.mesh.services() if each["service"] == service]
        return f"{service}@{replicas[int(number)]['address']}"


@contextmanager
def mixed(folder: Path, **variables: str) -> Iterator[Mixed]:
    """A mesh for them, as long as the block, `variables` before those above."""
    faults = folder / "faults.json"
    faults.write_text("{}")
    options = [option for replicas in REPLICAS for option in ("--replicas", replicas)]
    variables = VARIABLES | {"RAGLAN_FAULTS": f"@{faults}"} | variables
    with mesh_process.running(folder / "data", *options, **variables) as mesh:
        yield Mixed(mesh, faults)


class _Seen:
    """What a caller has of a reply so far."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.left = False
        self.error = ""
        self.final: dict[str, Any] = {}

    async def read(
        self, client: httpx.AsyncClient, kind: Kind, body: Any, headers: dict[str, str]
    ) -> None:
        async with client.stream("POST", kind.path, json=body, headers=headers) as reply:
            self.status = reply.status_code
            if not reply.headers["content-type"].startswith("text/event-stream"):
                self._whole(json.loads(await reply.aread()))
                return
            name, pieces = "", 0
            async for line in reply.aiter_lines():
                field_, _, value = line.partition(": ")
                if field_ == "event":
                    name = value
                elif field_ == "data":
                    self._event(name, json.loads(value))
                    pieces += name == "delta"
                    if kind.leaves_in_answer and pieces == 2:
                        self.left = True
                        return

    def _whole(self, document: dict[str, Any]) -> None:
        if "error" in document:
            self.error = document["error"]["type"]
        else:
            self.final = document

    def _event(self, name: str, data: dict[str, Any]) -> None:
        if name == "error":
            self.error = errors.wire(errors.from_status(data["code"], "")).type
        elif name == "final":
            self.final = data


async def _traced(client: httpx.AsyncClient, outcome: Outcome) -> Result:
    """The trace as soon as nothing is wrong with it, or as it is when it should be complete."""
    late = time.monotonic() + _LATE_S
    while True:
        reply = await client.get(f"/v1/traces/{outcome.trace_id}")
        trace = reply.json()
        found = expected.problems(outcome, trace) if reply.is_success else ["there is no trace"]
        if not found or time.monotonic() > late:
            return Result(outcome, trace, found)
        await asyncio.sleep(0.3)


def _ids() -> tuple[str, str]:
    return secrets.token_hex(16), secrets.token_hex(8)


def _header(trace_id: str, span_id: str) -> dict[str, str]:
    return {"traceparent": f"00-{trace_id}-{span_id}-00"}
