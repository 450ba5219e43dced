"""Sizes of memory: read from text, and written for people."""

from __future__ import annotations

import re
from typing import Final

GB: Final = 10**9
GIB: Final = 2**30

_UNITS: Final = {
    "MB": 10**6, "GB": GB, "TB": 10**12,
    "MIB": 2**20, "GIB": GIB, "TIB": 2**40,
}  # fmt: skip
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


class InvalidSize(ValueError):
    """Text that is no size; the message says what to write."""


def parse_size(text: str) -> int:
    """Return the bytes of `text`, such as 24GB, 22.5GiB or 24564MiB.

    GB is 10^9 bytes. A card that is sold as 24 GB has between 24.1 and 25.8 of them, so a plan for
    "24GB" holds on each; `nvidia-smi` shows the exact figure in MiB.

    Raises:
        InvalidSize: no number, or no unit.
    """
    matched = _SIZE.fullmatch(text.strip())
    unit = matched and _UNITS.get(matched[2].upper())
    if not matched or not unit:
        raise InvalidSize(f"{text!r} is no size of memory; write 24GB, 22.5GiB or 24564MiB.")
    size = int(float(matched[1]) * unit)
    if size <= 0:
        raise InvalidSize(f"{text!r} is no memory at all; write 24GB, 22.5GiB or 24564MiB.")
    return size


def gigabytes(size: float) -> str:
    """Return `size` in GB for people: two figures below 10 GB, else one."""
    value = size / GB
    return f"{value:.2f} GB" if value < 10 else f"{value:,.1f} GB"
