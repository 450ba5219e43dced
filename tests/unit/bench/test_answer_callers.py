"""Streamed answers, as the load generator reads them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc
import pytest
from callers import LATE, OK, Reply, Target, connected
from raglan.v1 import generator_pb2

PATH = "/bench.Generator/Generate"
FRAMES = (
    b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n',
    b'data: {"choices":[{"delta":{"content":"Hello"}}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":9,"total_tokens":13,"completion_tokens":4}}\n\n',
    b"data: [DONE]\n\n",
)

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def http_server(answer: Answer) -> AsyncIterator[Target]:
    """Answers each request of a connection with `answer`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
                await answer(writer)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            left.set()
        writer.close()

    left = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield Target("http-answers", server.sockets[0].getsockname()[1], "/", first_s=0.2)
        await asyncio.wait_for(left.wait(), 5)


def head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")


def chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))


async def whole(writer: asyncio.StreamWriter) -> None:
    head(writer)
    for frame in FRAMES:
        chunk(writer, frame)
        # Each frame by itself, as a model writes them.
        await writer.drain()
        await asyncio.sleep(0)
    writer.write(b"0\r\n\r\n")


async def ask(target: Target, timeout_s: float = 5) -> list[Reply]:
    """Two answers, one after the other."""
    async with connected(target, 1) as (call,):
        return [await call(b"{}", timeout_s) for _ in range(2)]


async def test_the_servers_count_of_tokens_comes_with_each_event_stream() -> None:
    async with http_server(whole) as target:
        replies = await ask(target)
    assert [(reply.status, reply.read, reply.written) for reply in replies] == [(OK, 9, 4)] * 2


async def test_an_answer_over_http_begins_with_its_first_text() -> None:
    async def slow(writer: asyncio.StreamWriter) -> None:
        head(writer)
        chunk(writer, FRAMES[0])
        await writer.drain()
        await asyncio.sleep(0.02)
        said.append(time.perf_counter())
        for frame in FRAMES[1:]:
            chunk(writer, frame)
        writer.write(b"0\r\n\r\n")

    said: list[float] = []
    async with http_server(slow) as target:
        replies = await ask(target)
    assert all((reply.began or 0.0) >= text for reply, text in zip(replies, said, strict=True))


async def test_a_caller_leaves_an_event_stream_that_does_not_begin() -> None:
    async def silent(writer: asyncio.StreamWriter) -> None:
        head(writer)
        chunk(writer, FRAMES[0])

    async with http_server(silent) as target:
        replies = await ask(target)
    assert [reply.status for reply in replies] == [LATE] * 2


async def test_an_event_stream_that_breaks_off_is_no_answer() -> None:
    async def broken(writer: asyncio.StreamWriter) -> None:
        head(writer)
        chunk(writer, FRAMES[1])
        await writer.drain()
        writer.close()

    async with http_server(broken) as target:
        replies = await ask(target)
    assert OK not in [reply.status for reply in replies]


@pytest.mark.parametrize(("degraded", "status"), [(b"", OK), (b'{"stage":"rerank"}', "CUT_OFF")])
async def test_a_query_for_which_a_stage_fell_back_is_not_whole(
    degraded: bytes, status: str
) -> None:
    async def answered(writer: asyncio.StreamWriter) -> None:
        head(writer)
        chunk(writer, b'event: delta\ndata: {"text":"Hello"}\nid: 3\n\n')
        usage = b'"usage":{"prompt_tokens":9,"completion_tokens":4,"cached_tokens":0}'
        chunk(writer, b'event: final\ndata: {"degraded":[%s],%s}\n\n' % (degraded, usage))
        chunk(writer, b"event: done\ndata: {}\n\n")
        writer.write(b"0\r\n\r\n")

    async with http_server(answered) as target:
        replies = await ask(replace(target, transport="http-queries"))
    assert [reply.status for reply in replies] == [status] * 2
    assert all(reply.began is not None for reply in replies)


async def test_a_grpc_answer_begins_with_its_first_delta_and_ends_with_its_usage() -> None:
    async def generate(_: bytes, __: object) -> AsyncIterator[bytes]:
        event = generator_pb2.GenerateEvent
        yield event(delta=generator_pb2.Delta(text="Hello")).SerializeToString()
        usage = generator_pb2.Usage(prompt_tokens=9, completion_tokens=4)
        yield event(finished=generator_pb2.Finished(usage=usage)).SerializeToString()

    async with grpc_server(generate) as target:
        replies = await ask(target)
    assert [(reply.status, reply.read, reply.written) for reply in replies] == [(OK, 9, 4)] * 2
    assert all(reply.began is not None for reply in replies)


async def test_a_caller_leaves_a_grpc_answer_that_does_not_begin() -> None:
    async def generate(_: bytes, __: object) -> AsyncIterator[bytes]:
        try:
            await asyncio.Event().wait()
            yield b""
        finally:
            left.set()

    left = asyncio.Event()
    async with grpc_server(generate) as target:
        async with connected(target, 1) as (call,):
            reply = await call(b"", 5)
        await asyncio.wait_for(left.wait(), 5)
    assert reply == Reply(LATE)


@asynccontextmanager
async def grpc_server(
    generate: Callable[[bytes, object], AsyncIterator[bytes]],
) -> AsyncIterator[Target]:
    server = grpc.aio.server()
    handler = grpc.unary_stream_rpc_method_handler(generate)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("bench.Generator", {"Generate": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield Target("grpc-answers", port, PATH, first_s=0.2)
    finally:
        await server.stop(None)
