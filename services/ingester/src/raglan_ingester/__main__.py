"""Start the ingester: `python -m raglan_ingester`."""

from raglan.rpc.server import serve
from raglan.settings import load_or_exit

from raglan_ingester.app import build
from raglan_ingester.settings import IngesterSettings


def main() -> None:
    """Run the ingester until a signal stops it."""
    settings = load_or_exit(IngesterSettings)
    serve(lambda: build(settings), settings)


if __name__ == "__main__":
    main()
