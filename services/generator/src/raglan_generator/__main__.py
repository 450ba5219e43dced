"""Run the generator: `python -m raglan_generator`, settings from `RAGLAN_GENERATOR_*`."""

from __future__ import annotations

from raglan.rpc.server import serve

from raglan_generator.app import build
from raglan_generator.settings import GeneratorSettings


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    serve(build, GeneratorSettings)


if __name__ == "__main__":
    main()
