"""Validation of Redis URLs, apart from the client, so that reading settings does not import it."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, urlsplit

_FORM: Final = "redis://[user:password@]host[:port][/database], or rediss:// for TLS"
_DATABASE: Final = re.compile(r"/?\d*")


def check(url: str) -> None:
    """Refuse what is no URL of Redis. Errors show nothing of it: it may hold a password.

    Raises:
        ValueError: what is wrong, and the form it should have.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("redis", "rediss") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none, often the rest of a password with a slash in it
        usable = False
    if not usable:
        raise ValueError(
            f"not a URL of Redis; give {_FORM}, and percent-encode @, :, / and # in a password"
        )
    if parts.query or parts.fragment:
        # The client would let them win over its timeouts.
        raise ValueError(f"a URL with options, which are not taken; give {_FORM}")
    if not _DATABASE.fullmatch(parts.path):
        raise ValueError(f"a URL whose database is no number; give {_FORM}")


def with_password(url: str, password: str) -> str:
    """Put `password` into a checked `url`.

    Raises:
        ValueError: `url` has one already.
    """
    parts = urlsplit(url)
    if parts.password is not None:
        raise ValueError("a URL with a password of its own; keep one of the two")
    user, _, address = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}:{quote(password, safe='')}@{address}").geturl()
