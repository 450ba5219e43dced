"""Run the tracer: `python -m raglan_tracer`, settings from `RAGLAN_TRACER_*`."""

from __future__ import annotations

from raglan.rpc.server import serve

from raglan_tracer.app import build
from raglan_tracer.settings import TracerSettings


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    serve(build, TracerSettings)


if __name__ == "__main__":
    main()
