"""Run the retriever: `python -m raglan_retriever`."""

from raglan.rpc.server import serve
from raglan.settings import load_or_exit

from raglan_retriever.app import build
from raglan_retriever.settings import RetrieverSettings


def main() -> None:
    """Serve until told to stop."""
    settings = load_or_exit(RetrieverSettings)
    serve(lambda: build(settings), settings)


if __name__ == "__main__":
    main()
