"""Run the embedder: `python -m raglan_embedder`, settings from `RAGLAN_EMBEDDER_*`."""

from __future__ import annotations

from raglan.rpc.server import serve

from raglan_embedder.app import build
from raglan_embedder.settings import EmbedderSettings


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    serve(build, EmbedderSettings)


if __name__ == "__main__":
    main()
