"""Run the tracer: `python -m raglan_tracer`."""

from raglan.rpc.server import serve
from raglan.settings import load_or_exit

from raglan_tracer.app import build
from raglan_tracer.settings import TracerSettings


def main() -> None:
    """Serve until told to stop."""
    settings = load_or_exit(TracerSettings)
    serve(lambda: build(settings), settings)


if __name__ == "__main__":
    main()
