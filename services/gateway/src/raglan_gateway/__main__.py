"""`python -m raglan_gateway`: serve REST until SIGTERM or SIGINT."""

from __future__ import annotations

from raglan import event_loop, logs
from raglan.settings import load_or_exit
from raglan.telemetry import tracing

from raglan_gateway.app import build
from raglan_gateway.lifecycle import serve
from raglan_gateway.settings import GatewaySettings


def main() -> None:
    """Entry point."""
    settings = load_or_exit(GatewaySettings)
    logs.configure(settings, "gateway")
    traces = tracing.install("gateway")
    try:
        raise SystemExit(event_loop.run(serve(build, settings)))
    finally:
        traces.close()


if __name__ == "__main__":
    main()
