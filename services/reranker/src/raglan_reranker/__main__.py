"""Run the reranker: `python -m raglan_reranker`, settings from `RAGLAN_RERANKER_*`."""

from __future__ import annotations

from raglan.rpc.server import serve
from raglan.settings import load_or_exit

from raglan_reranker.app import build
from raglan_reranker.settings import RerankerSettings


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = load_or_exit(RerankerSettings)
    serve(lambda: build(settings), settings)


if __name__ == "__main__":
    main()
