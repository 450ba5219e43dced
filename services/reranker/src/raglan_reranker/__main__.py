"""Run the reranker: `python -m raglan_reranker`, settings from `RAGLAN_RERANKER_*`."""

from __future__ import annotations

from raglan.rpc.server import serve

from raglan_reranker.app import build
from raglan_reranker.settings import RerankerSettings


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    serve(build, RerankerSettings)


if __name__ == "__main__":
    main()
