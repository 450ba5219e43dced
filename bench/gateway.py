"""The figures of the gateway as a product, on meshes that this starts: `make bench-gateway`.

    python bench/gateway.py [chat] [caches] [semantic]

Without names, all of them, which end in `bench/results/gateway.json`; with names, each in
`bench/results/gateway-<name>.json`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

import gateway_caches
import gateway_chat
import gateway_semantic
from report import Row, publish

PARTS: Final[dict[str, Callable[[], list[Row]]]] = {
    "chat": gateway_chat.chat,
    "caches": gateway_caches.caches,
    "semantic": gateway_semantic.semantic,
}


def main() -> None:
    """Measure what the command line names."""
    if unknown := set(sys.argv[1:]) - set(PARTS):
        raise SystemExit(f"There is no {', '.join(unknown)}; there are {', '.join(PARTS)}.")
    if not sys.argv[1:]:
        publish("gateway", [row for measure in PARTS.values() for row in measure()])
    for name in sys.argv[1:]:
        publish(f"gateway-{name}", PARTS[name]())


if __name__ == "__main__":
    main()
