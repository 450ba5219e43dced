"""An open-loop load on a gateway: requests leave when they are due, whatever became of the others.

A process of its own, so that what it measures is not slowed by whoever injects the faults:

    python open_loop.py '{"port": 8080, "seed": 1, "rate": 50, ...}' records.jsonl

Arrivals are Poisson. Latency counts from the moment at which a request was due, so that a stall
counts for each request that it held up. Commands come on stdin, a line each: `rate 120`, `stop`.
Each request becomes one line of JSON, see `Record`; times are readings of CLOCK_MONOTONIC, which
all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

KINDS = ("search", "query", "stream")


@dataclass(frozen=True)
class Options:
    """What to send."""

    port: int
    seed: int
    rate: float
    """Requests a second, on average. 0: closed loop, as fast as `workers` get answers."""
    workers: int = 16
    mixture: tuple[float, float, float] = (0.60, 0.25, 0.15)
    """Shares of searches, queries answered whole, and queries streamed."""
    timeout_s: float = 5.0
    grace_s: float = 0.25
    """What a request may take past its deadline."""
    max_tokens: int = 12
    questions: int = 0
    """How many different queries; 0: no two are alike."""
    critical: float = 0.0
    """Share of requests in the critical class."""
    batch: float = 0.0
    retries: int = 0
    """How often a client asks again, at once, after anything but an answer."""


@dataclass
class Record:
    """One request, or one try of it."""

    at: float
    """When it was due."""
    kind: str
    priority: str
    attempt: int = 0
    sent: float = 0.0
    took_s: float = 0.0
    """From `at` to the outcome."""
    first_s: float | None = None
    """From `at` to the first piece of a streamed answer."""
    outcome: str = "late"
    """ok; refused (429 or 503, typed); error (another typed error, or a stream's error event);
    untyped_500, untyped (no envelope); broken (a stream without an end); reset (no reply at all);
    late (nothing by deadline + `grace_s`)."""
    status: int = 0
    code: str = ""
    message: str = ""
    retry_after: str = ""
    degraded: list[str] = field(default_factory=list)
    deltas: int = 0
    answer: str = ""


class Connections:
    """Keep-alive connections to one port, reused last in, first out."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def take(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """An idle connection that the server has not closed, or a new one."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self._port)

    def give(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Keep it for the next request."""
        self._idle.append((reader, writer))

    def close(self) -> None:
        """Close those that are idle."""
        for _, writer in self._idle:
            writer.close()


class Load:
    """Sends, and writes what came of it."""

    def __init__(self, options: Options, output: TextIO) -> None:
        self.options = options
        self.rate = options.rate
        self.stopped = asyncio.Event()
        self._output = output
        self._chance = random.Random(options.seed)
        self._connections = Connections(options.port)
        self._running: set[asyncio.Task[None]] = set()
        self._number = 0

    async def run(self) -> None:
        """Until `stopped`; then until every request has its outcome."""
        if self.rate:
            await self._open()
        else:
            await asyncio.gather(*(self._closed() for _ in range(self.options.workers)))
        if self._running:
            await asyncio.wait(self._running)
        self._connections.close()

    async def _open(self) -> None:
        due = time.monotonic()
        while not self.stopped.is_set():
            due += self._chance.expovariate(self.rate)
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self._ask(*self._drawn(due)))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _closed(self) -> None:
        while not self.stopped.is_set():
            await self._ask(*self._drawn(time.monotonic()))

    def _drawn(self, due: float) -> tuple[float, str, str, bytes]:
        """A request: when, what, in which class, and its body."""
        options, self._number = self.options, self._number + 1
        (kind,) = self._chance.choices(KINDS, options.mixture)
        others = 1 - options.critical - options.batch
        (priority,) = self._chance.choices(
            ("critical", "default", "batch"), (options.critical, others, options.batch)
        )
        # Those of another load are others too: caches would know them.
        case = options.seed * 1_000_000 + self._number
        if options.questions:
            case = self._number % options.questions
        body: dict[str, Any] = {
            "query": f"What does a stage cost in case {case}?",
            "timeout_ms": int(options.timeout_s * 1e3),
        }
        if kind != "search":
            body |= {"max_tokens": options.max_tokens, "stream": kind == "stream"}
        return due, kind, priority, json.dumps(body).encode()

    async def _ask(self, at: float, kind: str, priority: str, body: bytes) -> None:
        for attempt in range(1 + self.options.retries):
            record = Record(at, kind, priority, attempt, sent=time.monotonic())
            await self._try(record, body)
            record.took_s = time.monotonic() - at
            self._output.write(json.dumps(asdict(record)) + "\n")
            self._output.flush()
            if record.outcome == "ok":
                return
            at = time.monotonic()

    async def _try(self, record: Record, body: bytes) -> None:
        limit = record.at + self.options.timeout_s + self.options.grace_s
        try:
            async with asyncio.timeout_at(limit):
                await self._exchange(record, body)
        except TimeoutError:
            record.outcome = "late"
        except (OSError, EOFError) as error:
            record.outcome = "broken" if record.status == 200 else "reset"
            record.message = type(error).__name__
        except ValueError as error:
            record.outcome, record.message = "untyped", str(error)[:200]

    async def _exchange(self, record: Record, body: bytes) -> None:
        reader, writer = await self._connections.take()
        done = False
        try:
            path = "/v1/search" if record.kind == "search" else "/v1/query"
            head = (
                f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                f"X-Raglan-Priority: {record.priority}\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            headers = await _head(reader, record)
            if headers.get("content-type", "").startswith("text/event-stream"):
                await self._read_events(reader, record)
            else:
                _judge(record, await _body(reader, headers))
            done = headers.get("connection", "") != "close"
        finally:
            if done:
                self._connections.give(reader, writer)
            else:
                writer.transport.abort()

    async def _read_events(self, reader: asyncio.StreamReader, record: Record) -> None:
        seen: list[str] = []
        async for name, data in _events(reader):
            seen.append(name)
            if name == "delta":
                record.first_s = record.first_s or time.monotonic() - record.at
                record.deltas += 1
            elif name == "final":
                record.degraded = [
                    f"{each['stage']}:{each['fallback']}" for each in data["degraded"]
                ]
                record.answer = data["answer"]
            elif name == "error":
                record.code, record.message = data["code"], data["message"]
        match seen[-2:]:
            case ["final", "done"]:
                record.outcome = "ok"
            case [*_, "error"]:
                unexpected = record.code == "INTERNAL" and "error of its own" in record.message
                record.outcome = "untyped_500" if unexpected else "error"
            case _:
                record.outcome = "broken"


def _judge(record: Record, body: bytes) -> None:
    """What a whole reply means."""
    try:
        document = json.loads(body)
        if record.status == 200:
            record.outcome = "ok"
            record.degraded = [f"{e['stage']}:{e['fallback']}" for e in document["degraded"]]
            record.answer = document.get("answer", "")
            return
        problem = document["error"]
        record.code, record.message = problem["code"], problem["message"]
    except (ValueError, KeyError, TypeError):
        record.outcome = "untyped_500" if record.status == 500 else "untyped"
        return
    if record.status in (429, 503):
        record.outcome = "refused" if record.retry_after else "untyped"
    elif record.status == 500 and record.message == "The gateway met an error of its own.":
        # The envelope around an exception that nobody had foreseen.
        record.outcome = "untyped_500"
    else:
        record.outcome = "error"


async def _head(reader: asyncio.StreamReader, record: Record) -> dict[str, str]:
    """Status line and headers, names in lower case."""
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    record.status = int(status.split(" ", 2)[1])
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    record.retry_after = headers.get("retry-after", "")
    return headers


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if length := headers.get("content-length"):
        return await reader.readexactly(int(length))
    return b"".join([chunk async for chunk in _chunks(reader)])


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The chunks of a body in chunked encoding."""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)


async def _events(reader: asyncio.StreamReader) -> AsyncIterator[tuple[str, Any]]:
    """The (name, data) pairs of an event stream, comments left out."""
    pending = b""
    async for chunk in _chunks(reader):
        pending += chunk
        *whole, pending = pending.split(b"\n\n")
        for event in whole:
            fields = dict(
                line.split(": ", 1) for line in event.decode().split("\n") if ": " in line
            )
            if "event" in fields:
                yield fields["event"], json.loads(fields["data"])


async def _obey(load: Load) -> None:
    """Follow the commands on stdin; its end is a stop."""
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    while line := (await reader.readline()).decode().split():
        if line[0] == "stop":
            break
        load.rate = float(line[1])
    load.stopped.set()


async def main() -> None:
    """Until stdin says stop or ends."""
    options = json.loads(sys.argv[1])
    options["mixture"] = tuple(options.get("mixture", Options.mixture))
    with Path(sys.argv[2]).open("w") as output:  # noqa: ASYNC230 - before anything runs
        load = Load(Options(**options), output)
        obeying = asyncio.create_task(_obey(load))
        await load.run()
        obeying.cancel()


if __name__ == "__main__":
    asyncio.run(main())
