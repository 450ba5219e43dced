"""Run the retriever: `python -m raglan_retriever`, settings from `RAGLAN_RETRIEVER_*`."""

from __future__ import annotations

from raglan.rpc.server import serve

from raglan_retriever.app import build
from raglan_retriever.settings import RetrieverSettings


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    serve(build, RetrieverSettings)


if __name__ == "__main__":
    main()
