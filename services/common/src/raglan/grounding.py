"""When a sentence of an answer counts as supported by what it cites.

Both thresholds were chosen on SciFact's claims; `make bench-claims` prints what they let pass.
"""

from __future__ import annotations

from typing import Final

SUPPORTED_SHARE: Final = 0.5
"""Share of its terms that the passages it cites hold."""

SUPPORTED_COSINE: Final = 0.65
"""Cosine of its vector and a quote's, as all-MiniLM-L6-v2 has them."""
