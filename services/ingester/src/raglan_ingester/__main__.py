"""Run the ingester: `python -m raglan_ingester`, settings from `RAGLAN_INGESTER_*`."""

from __future__ import annotations

from raglan.rpc.server import serve

from raglan_ingester.app import build
from raglan_ingester.settings import IngesterSettings


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    serve(build, IngesterSettings)


if __name__ == "__main__":
    main()
