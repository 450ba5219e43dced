"""Limits on the body of every request: its size, and how long it may take to arrive."""

from __future__ import annotations

import asyncio
import time

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raglan_gateway.settings import GatewaySettings


class BodyLimit:
    """ASGI middleware: reading past a limit raises 413 or 408, with limit and setting named.

    A small body has to be whole within its time; an upload has to go on within it.
    """

    def __init__(self, app: ASGIApp, *, settings: GatewaySettings) -> None:
        self.app = app
        self._request = (settings.max_request_bytes, "RAGLAN_GATEWAY_MAX_REQUEST_BYTES")
        self._upload = (settings.max_upload_bytes, "RAGLAN_GATEWAY_MAX_UPLOAD_BYTES")
        self._body_s = settings.body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        uploads = scope["path"].endswith("/documents")
        limit, variable = self._upload if uploads else self._request
        announced = int(dict(scope["headers"]).get(b"content-length") or 0)
        read = 0
        complete = False
        began = time.monotonic()

        async def limited() -> Message:
            nonlocal read, complete
            if complete:  # what comes next is the client's leaving
                return await receive()
            until = (time.monotonic() if uploads else began) + self._body_s
            message = await self._in_time(receive, until) if announced <= limit else {}
            if message.get("type") == "http.disconnect":
                raise HTTPException(499, "The client left before its body was complete")
            read += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if max(read, announced) > limit:
                raise HTTPException(
                    413,
                    f"The body has {max(read, announced)} bytes or more; "
                    f"the limit is {limit} ({variable})",
                )
            return message

        await self.app(scope, limited, send)

    async def _in_time(self, receive: Receive, until: float) -> Message:
        try:
            async with asyncio.timeout(until - time.monotonic()):
                return await receive()
        except TimeoutError:
            raise HTTPException(
                408,
                f"The body took longer than {self._body_s:g} s to arrive (RAGLAN_GATEWAY_BODY_S)",
                # What is still to come would hold the connection.
                headers={"Connection": "close"},
            ) from None
