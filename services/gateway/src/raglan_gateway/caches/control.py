"""`Cache-Control` of a request (RFC 9111, 5.2.1), as far as it is respected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class CacheControl:
    """Permissions of the caches for one request."""

    reads: bool = True
    """False (`no-cache`): nothing cached is used."""
    stores: bool = True
    """False (`no-store`): nothing of the request or its reply is kept."""
    max_age_s: float | None = None
    """Oldest value that may be used; None leaves it to the settings."""


DEFAULT: Final = CacheControl()


def parse(header: str) -> CacheControl:
    """Read the header. Unknown directives are ignored, as is a `max-age` that is no number."""
    if not header:
        return DEFAULT
    directives = {}
    for part in header.lower().split(","):
        name, _, value = part.strip().partition("=")
        directives[name] = value.strip('"')
    age = directives.get("max-age", "")
    max_age_s = float(age) if age.isascii() and age.isdigit() and len(age) < 12 else None
    reads = "no-cache" not in directives and max_age_s != 0
    return CacheControl(reads, "no-store" not in directives, max_age_s)
