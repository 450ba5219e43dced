"""Certificates of the mesh, as files that may change while processes run.

All services share three variables. Each file is looked at again whenever a connection begins, so a
certificate that was renewed needs no restart; a set of files that do not fit together, as in the
middle of a renewal, leaves the last one in force.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

log: Final = structlog.get_logger()

CERT: Final = "RAGLAN_TLS_CERT"
"""This process's certificate and those between it and the authority, PEM."""

KEY: Final = "RAGLAN_TLS_KEY"
"""Its private key, PEM, without a passphrase."""

CA: Final = "RAGLAN_TLS_CA"
"""The authorities whose certificates are accepted, of callers and of those called, PEM."""

DOMAIN: Final = "RAGLAN_TLS_DOMAIN"
"""Domain after a service's name in its certificate: "raglan.svc" for embedder.raglan.svc."""

FILES: Final = (CERT, KEY, CA)
OWN: Final = (*FILES, DOMAIN)

_Version = tuple[tuple[int, int, int], ...]


class TlsError(ValueError):
    """The files cannot be used; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Material:
    """Contents of the files, in PEM."""

    cert: bytes
    key: bytes
    ca: bytes


class TlsFiles:
    """The three files, for readers in any thread."""

    def __init__(self, cert: Path, key: Path, ca: Path) -> None:
        """Read them.

        Raises:
            TlsError: they cannot be read, or do not fit together.
        """
        self._paths = (cert, key, ca)
        self._lock = threading.Lock()
        self._tried = self._version()
        self._material = self._read()

    def current(self) -> Material:
        """Return the current contents. A set that cannot be used leaves the last one in force."""
        with self._lock:
            version = self._version()
            if version != self._tried:
                self._tried = version
                try:
                    self._material = self._read()
                    log.info("certificates read again", files=list(map(str, self._paths)))
                except TlsError as error:
                    log.warning("certificates not taken", reason=str(error))
            return self._material

    def _version(self) -> _Version:
        """Changes with each of the files; empty while one is missing."""
        try:
            stats = [path.stat() for path in self._paths]
        except OSError:
            return ()
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)

    def _read(self) -> Material:
        cert, key, ca = self._paths
        try:
            read = Material(cert.read_bytes(), key.read_bytes(), ca.read_bytes())
        except OSError as error:
            raise TlsError(f"{error.filename} cannot be read: {error.strerror}.") from None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            # An empty passphrase: without one OpenSSL would ask in the terminal.
            context.load_cert_chain(cert, key, password="")
        except ssl.SSLError as error:
            raise TlsError(
                f"{cert} and {key} are no certificate with its key: {_reason(error)}."
            ) from None
        try:
            context.load_verify_locations(cadata=read.ca.decode("ascii", "replace"))
        except ssl.SSLError as error:
            raise TlsError(f"{ca} holds no certificate: {_reason(error)}.") from None
        return read


def configured(environ: Mapping[str, str]) -> TlsFiles | None:
    """The files that `environ` names; None where it names none.

    Raises:
        TlsError: it names some of them only, or they cannot be used.
    """
    named = [environ.get(name, "") for name in FILES]
    if not any(named):
        return None
    if missing := [name for name, path in zip(FILES, named, strict=True) if not path]:
        raise TlsError(
            f"{' and '.join(missing)} must be set too: {', '.join(FILES)} are one setting."
        )
    cert, key, ca = map(Path, named)
    return TlsFiles(cert, key, ca)


def problem(environ: Mapping[str, str]) -> str | None:
    """Return the fault of the variables as a sentence; None when there is none."""
    try:
        configured(environ)
    except TlsError as error:
        return str(error)
    return None


def peer_name(service: str, environ: Mapping[str, str]) -> str:
    """The DNS name that the certificate of `service` must hold, whatever its address is."""
    domain = environ.get(DOMAIN, "").strip(".")
    return f"{service}.{domain}" if domain else service


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()
