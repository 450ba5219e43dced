"""What the load generator of the fault matrix makes of a gateway's replies, good and bad."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from faults import open_loop
from faults.open_loop import Load, Options, Record

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
Ask = Callable[..., Awaitable[list[Record]]]

FINAL = {"degraded": [{"stage": "embed", "fallback": "lexical"}], "answer": "a b"}


@pytest.fixture
async def ask() -> AsyncIterator[Ask]:
    """Sends requests of one kind, one after the other, to a server that answers so."""
    servers: list[asyncio.Server] = []

    async def asked(answer: Answer, kind: str, *, count: int = 1, **options: float) -> list[Record]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.partition(b"Content-Length: ")[2].split()[0])
                await reader.readexactly(length)
                await answer(writer)
                if writer.is_closing():
                    return

        server = await asyncio.start_server(_quietly(serve), "127.0.0.1", 0)
        servers.append(server)
        output = io.StringIO()
        mixture = tuple(float(each == kind) for each in open_loop.KINDS)
        port = server.sockets[0].getsockname()[1]
        load = Load(Options(port, 1, 50, mixture=mixture, **options), output)  # type: ignore[arg-type]
        for _ in range(count):
            await load._ask(*load._drawn(asyncio.get_running_loop().time()))
            # As between arrivals: the end of a connection is heard of.
            await asyncio.sleep(0.02)
        load._connections.close()
        return [Record(**json.loads(line)) for line in output.getvalue().splitlines()]

    yield asked
    for server in servers:
        server.close()


def _quietly(serve: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (EOFError, OSError):
            pass
        finally:
            writer.close()

    return served


def whole(status: int, body: object, *headers: str) -> Answer:
    text = body if isinstance(body, str) else json.dumps(body)

    async def answer(writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} x", f"content-length: {len(text)}", *headers, "", text]
        writer.write("\r\n".join(lines).encode())

    return answer


def events(
    *names: str, code: str = "UNAVAILABLE", message: str = "m", ended: bool = True
) -> Answer:
    """A stream of these events; cut off where it has not `ended`."""
    data = {"final": FINAL, "error": {"code": code, "message": message}}

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        for name in names:
            event = f": beat\n\nevent: {name}\ndata: {json.dumps(data.get(name, {}))}\nid: 1\n\n"
            # In two chunks: an event need not come in one piece.
            for part in (event[:9], event[9:]):
                writer.write(f"{len(part):x}\r\n{part}\r\n".encode())
        if ended:
            writer.write(b"0\r\n\r\n")
        else:
            writer.close()

    return answer


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _say_nothing(writer: asyncio.StreamWriter) -> None:
    return None


PROBLEM = {"error": {"code": "UNAVAILABLE", "message": "m"}}
UNEXPECTED = {"error": {"code": "INTERNAL", "message": "The gateway met an error of its own."}}
FORESEEN = {"error": {"code": "INTERNAL", "message": "The retriever met an error of its own."}}


@pytest.mark.parametrize(
    ("answer", "kind", "outcome"),
    [
        (whole(200, FINAL), "search", "ok"),
        (whole(503, PROBLEM, "retry-after: 1"), "search", "refused"),
        (whole(429, PROBLEM, "Retry-After: 1"), "query", "refused"),
        (whole(503, PROBLEM), "search", "untyped"),
        (whole(504, PROBLEM), "query", "error"),
        (whole(500, UNEXPECTED), "query", "untyped_500"),
        (whole(500, FORESEEN), "query", "error"),
        (whole(500, {"detail": "x"}), "query", "untyped_500"),
        (whole(500, "Internal Server Error"), "query", "untyped_500"),
        (whole(404, "nothing"), "search", "untyped"),
        (_hang_up, "search", "reset"),
        (events("start", "delta", "final", "done"), "stream", "ok"),
        (events("start", "delta", "error"), "stream", "error"),
        (
            events("error", code="INTERNAL", message="met an error of its own"),
            "stream",
            "untyped_500",
        ),
        (events("start", "delta", "final"), "stream", "broken"),
        (events("start", "delta"), "stream", "broken"),
        (events("start", "delta", ended=False), "stream", "broken"),
    ],
)
async def test_each_reply_is_told_for_what_it_is(
    ask: Ask, answer: Answer, kind: str, outcome: str
) -> None:
    (record,) = await ask(answer, kind)
    assert record.outcome == outcome, record


async def test_a_gateway_that_says_nothing_is_late(
    ask: Ask,
) -> None:
    (record,) = await ask(_say_nothing, "search", timeout_s=0.1, grace_s=0.05)
    assert record.outcome == "late"
    assert record.took_s >= 0.15


async def test_tokens_degradations_and_the_answer_are_kept(ask: Ask) -> None:
    (record,) = await ask(events("start", "delta", "delta", "final", "done"), "stream")
    assert (record.deltas, record.degraded, record.answer) == (2, ["embed:lexical"], "a b")
    assert 0 < (record.first_s or 0) <= record.took_s


async def test_a_client_that_insists_asks_so_often_and_no_more(ask: Ask) -> None:
    records = await ask(whole(503, PROBLEM, "retry-after: 1"), "search", retries=3)
    assert [record.attempt for record in records] == [0, 1, 2, 3]


async def test_connections_are_kept_and_one_that_was_closed_is_not_used(ask: Ask) -> None:
    opened: set[asyncio.StreamWriter] = set()

    async def keep(writer: asyncio.StreamWriter) -> None:
        opened.add(writer)
        await whole(200, FINAL)(writer)

    async def close(writer: asyncio.StreamWriter) -> None:
        await keep(writer)
        await writer.drain()
        writer.close()

    assert [record.outcome for record in await ask(keep, "search", count=3)] == ["ok"] * 3
    assert len(opened) == 1
    assert [record.outcome for record in await ask(close, "search", count=3)] == ["ok"] * 3
    assert len(opened) == 4


async def test_latency_counts_from_the_due_time() -> None:
    """Arrivals wait for no answer and latency counts from when they were due."""
    held = asyncio.Event()
    arrived = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        arrived += 1
        await held.wait()
        await whole(200, FINAL)(writer)

    server = await asyncio.start_server(_quietly(serve), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    output = io.StringIO()
    load = Load(Options(port, 1, 200.0, mixture=(1.0, 0.0, 0.0)), output)
    running = asyncio.create_task(load.run())
    async with asyncio.timeout(30):
        while arrived < 20:
            await asyncio.sleep(0.01)
        held.set()
        load.stopped.set()
        await running
    server.close()
    records = [Record(**json.loads(line)) for line in output.getvalue().splitlines()]
    assert {record.outcome for record in records} == {"ok"}
    assert max(r.took_s for r in records) > 0.5 * (records[-1].at - records[0].at)
