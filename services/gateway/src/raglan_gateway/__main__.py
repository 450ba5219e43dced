"""`python -m raglan_gateway`: serve REST until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import math

import uvicorn
from raglan import heap, logs
from raglan.settings import load_or_exit

from raglan_gateway.app import build
from raglan_gateway.settings import GatewaySettings


def main() -> None:
    """Entry point."""
    settings = load_or_exit(GatewaySettings)
    logs.configure(settings, "gateway")
    asyncio.run(_serve(settings))


async def _serve(settings: GatewaySettings) -> None:
    config = uvicorn.Config(
        build(settings),
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.shutdown_grace_s),
    )
    heap.freeze()
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    main()
