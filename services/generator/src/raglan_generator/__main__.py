"""Run the generator: `python -m raglan_generator`."""

from __future__ import annotations

from raglan.rpc.server import serve
from raglan.settings import load_or_exit

from raglan_generator.app import build
from raglan_generator.settings import GeneratorSettings


def main() -> None:
    """Read the settings, build the service, serve until a signal."""
    settings = load_or_exit(GeneratorSettings)
    serve(lambda: build(settings), settings)


if __name__ == "__main__":
    main()
