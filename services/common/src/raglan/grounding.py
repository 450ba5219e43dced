"""When a sentence of an answer counts as supported by what it cites.

Both thresholds were chosen on SciFact's claims; `make bench-claims` prints what they let pass.
"""

from __future__ import annotations

from typing import Final

SUPPORTED_SHARE: Final = 0.5
"""Share of its terms that the passages it cites hold."""

SUPPORTED_COSINE: Final = 0.65
"""Cosine of its vector and a quote's, as all-MiniLM-L6-v2 has them."""


def is_supported(lexical: float, cosine: float | None = None, conflict: str = "") -> bool:
    """Whether what a sentence cites supports it.

    Args:
        lexical: in [0, 1], the share of its terms that the passages it cites hold.
        cosine: in [-1, 1], of its vector and the nearest quote's; None where not compared.
        conflict: what of it the passages contradict (see `raglan.conflicts`); empty for nothing.
    """
    if conflict:
        return False
    return lexical >= SUPPORTED_SHARE or (cosine or 0.0) >= SUPPORTED_COSINE
