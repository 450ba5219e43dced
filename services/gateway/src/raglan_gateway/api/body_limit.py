"""A limit on the body of every request, checked before and while it is read."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raglan_gateway.settings import GatewaySettings


class BodyLimit:
    """ASGI middleware: reading past the limit raises 413, with the limit and its setting named."""

    def __init__(self, app: ASGIApp, *, settings: GatewaySettings) -> None:
        self.app = app
        self._request = (settings.max_request_bytes, "RAGLAN_GATEWAY_MAX_REQUEST_BYTES")
        self._upload = (settings.max_upload_bytes, "RAGLAN_GATEWAY_MAX_UPLOAD_BYTES")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit, variable = self._upload if scope["path"].endswith("/documents") else self._request
        announced = int(dict(scope["headers"]).get(b"content-length") or 0)
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive() if announced <= limit else {}
            read += len(message.get("body", b""))
            if max(read, announced) > limit:
                raise HTTPException(
                    413,
                    f"The body has {max(read, announced)} bytes or more; "
                    f"the limit is {limit} ({variable})",
                )
            return message

        await self.app(scope, limited, send)
