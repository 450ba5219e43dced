"""An answer for those that the end of the process would cut off: 503, in the usual envelope."""

from __future__ import annotations

from raglan.errors import Unavailable
from raglan.lifecycle import Lifecycle
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raglan_gateway.api.problem import reply


class LastWord:
    """ASGI middleware: a request still running after the grace gets 503 in its reply's place.

    A reply that has begun is left alone: streams of events end themselves, with an `error`.
    """

    def __init__(self, app: ASGIApp, *, lifecycle: Lifecycle) -> None:
        self.app = app
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False
        try:
            async with self._lifecycle.cancel_on_shutdown() as limit:

                async def noted(message: Message) -> None:
                    nonlocal begun
                    begun = True
                    self._lifecycle.exempt(limit)
                    await send(message)

                await self.app(scope, receive, noted)
        except Unavailable as error:
            if begun:
                raise
            await reply(error)(scope, receive, send)
