"""When a sentence of an answer counts as supported by what it cites."""

from __future__ import annotations

from typing import Final

SUPPORTED_SHARE: Final = 0.5
"""Share of its terms that the passages it cites hold."""

SUPPORTED_COSINE: Final = 0.6
"""Cosine of its vector and a quote's, as all-MiniLM-L6-v2 has them."""
