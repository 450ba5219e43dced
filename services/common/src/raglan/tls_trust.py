"""Trusted authorities of our HTTP clients: the operator's where named, else certifi's."""

from __future__ import annotations

import os
import ssl
from typing import Final

import certifi

VARIABLES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""OpenSSL's own variables, which it reads by itself where its defaults are used."""


def context() -> ssl.SSLContext:
    """For a client of https servers. Reads the certificates, 100 ms: make it in a thread."""
    if any(os.environ.get(name) for name in VARIABLES):
        return ssl.create_default_context()
    return ssl.create_default_context(cafile=certifi.where())


def file() -> str | None:
    """For a library that takes a file only; None is its own default."""
    return os.environ.get(VARIABLES[0]) or None
