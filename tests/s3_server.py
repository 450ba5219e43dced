"""A real S3 server, moto's in a process of its own, and a proxy before it that can fail."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import aiohttp
import ports
from aiohttp import web
from botocore.session import Session

ACCESS_KEY_ID: Final = "reader"
SECRET: Final = "a-secret-that-no-log-may-hold"
_START_S: Final = 60.0

Answer = tuple[int, str]
"""Status and code of an error."""


class S3Server:
    """One server; each test makes buckets of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client: Any = Session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=url,
            aws_access_key_id=ACCESS_KEY_ID,
            aws_secret_access_key=SECRET,
        )

    def bucket(self) -> str:
        """A new bucket."""
        name = f"bucket-{time.time_ns()}"
        self.client.create_bucket(Bucket=name)
        return name

    def put(self, bucket: str, files: Mapping[str, str]) -> None:
        """Write objects."""
        for key, text in files.items():
            self.client.put_object(Bucket=bucket, Key=key, Body=text.encode())

    def delete(self, bucket: str, *keys: str) -> None:
        """Delete objects."""
        for key in keys:
            self.client.delete_object(Bucket=bucket, Key=key)


@contextmanager
def running() -> Iterator[S3Server]:
    """Run a server until the block ends."""
    port = ports.free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server: S3Server | None = None
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url, process)
        server = S3Server(url)
        yield server
    finally:
        if server is not None:
            server.client.close()
        process.terminate()
        process.wait()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_S
    while True:
        try:
            urllib.request.urlopen(f"{url}/moto-api/").close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.1)


class FailingProxy:
    """Passes requests on, but for those that `fails` answers; `seen` counts all."""

    def __init__(self, to: str) -> None:
        self._to = to
        self.url = ""
        self.seen = 0
        self.fails: Callable[[web.Request], Answer | None] = lambda request: None
        self.cuts_bodies = False
        self.page = 1000
        """Objects in one page of a listing."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen += 1
        if failure := self.fails(request):
            status, code = failure
            body = f"<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>"
            return web.Response(status=status, text=body, content_type="application/xml")
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            path = request.raw_path
            if "list-type=2" in path:
                path += f"&max-keys={self.page}"
            sent = await session.request(request.method, self._to + path, headers=request.headers)
            body_bytes = await sent.read()
        if self.cuts_bodies and request.path.endswith(".txt"):
            reply = web.StreamResponse(headers={"Content-Length": "1000000"})
            await reply.prepare(request)
            await reply.write(body_bytes)
            assert request.transport is not None
            request.transport.close()
            return reply
        kept = {k: v for k, v in sent.headers.items() if k in ("ETag", "Content-Type")}
        return web.Response(status=sent.status, body=body_bytes, headers=kept)


@asynccontextmanager
async def failing(server: S3Server) -> AsyncIterator[FailingProxy]:
    """Run a proxy before a server until the block ends."""
    proxy = FailingProxy(server.url)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", proxy.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        port = ports.free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        proxy.url = f"http://127.0.0.1:{port}"
        yield proxy
    finally:
        await runner.cleanup()
