"""The wire of a released version: its messages, and a proxy through which only they pass.

A proxy between two processes makes each of them meet an older one: fields, messages and rpcs that
the release did not know do not get through, in either direction.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

RELEASED: Final = Path(__file__).parent / "contract" / "proto" / "released"
"""One descriptor set a release, made by `make proto-release`."""

_STARTED_S: Final = 20.0


class Release:
    """The contracts of one release."""

    def __init__(self, path: Path) -> None:
        files = descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())
        self._pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            self._pool.Add(file)
        ours = [file for file in files.file if file.package == "raglan.v1"]
        self.messages: dict[str, type[Message]] = {}
        self.methods: dict[str, tuple[type[Message], type[Message]]] = {}
        for file in ours:
            found = self._pool.FindFileByName(file.name)
            for name, message in found.message_types_by_name.items():
                self.messages[name] = message_factory.GetMessageClass(message)
            for service in found.services_by_name.values():
                for method in service.methods:
                    self.methods[f"/{service.full_name}/{method.name}"] = (
                        message_factory.GetMessageClass(method.input_type),
                        message_factory.GetMessageClass(method.output_type),
                    )


def releases() -> list[Path]:
    """All of them, the first one first."""
    return sorted(RELEASED.glob("*.binpb"))


class _Proxy(grpc.GenericRpcHandler):
    def __init__(self, release: Release, target: str, seen: set[str]) -> None:
        self._release = release
        self._channel = grpc.aio.insecure_channel(target)
        self._seen = seen

    def service(self, details: Any) -> Any:
        method = details.method
        own = method.startswith("/grpc.")  # health and reflection are not ours
        if not own and method not in self._release.methods:
            return None
        request, reply = (None, None) if own else self._release.methods[method]
        metadata = details.invocation_metadata

        async def call(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async def passed() -> AsyncIterator[bytes]:
                async for data in requests:
                    yield _known(request, data)

            forwarded = self._channel.stream_stream(method)(
                passed(),
                timeout=context.time_remaining(),
                metadata=[(k, v) for k, v in metadata if not k.startswith((":", "grpc-", "user-"))],
            )
            self._seen.add(method)
            try:
                async for data in forwarded:
                    yield _known(reply, data)
            except grpc.aio.AioRpcError as error:
                await context.abort(
                    error.code(), error.details() or "", tuple(error.trailing_metadata() or ())
                )
            finally:
                forwarded.cancel()

        return grpc.stream_stream_rpc_method_handler(call)


def _known(message: type[Message] | None, data: bytes) -> bytes:
    """What a process of the release makes of a message, and hands on of it."""
    if message is None:
        return data
    parsed = message.FromString(data)
    parsed.DiscardUnknownFields()
    return parsed.SerializeToString()


@contextmanager
def proxies(release: Release, routes: dict[int, str]) -> Iterator[set[str]]:
    """Listen on each port and pass on to its address; yields the methods that were called."""
    seen: set[str] = set()
    loop = asyncio.new_event_loop()
    servers: list[grpc.aio.Server] = []

    async def start() -> None:
        for port, target in routes.items():
            server = grpc.aio.server()
            server.add_generic_rpc_handlers((_Proxy(release, target, seen),))
            server.add_insecure_port(f"127.0.0.1:{port}")
            await server.start()
            servers.append(server)

    async def stop() -> None:
        for server in servers:
            await server.stop(0)

    thread = threading.Thread(target=loop.run_forever, name="old wire")
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(start(), loop).result(_STARTED_S)
        yield seen
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(_STARTED_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_STARTED_S)
        loop.close()
