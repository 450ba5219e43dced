"""Mutual TLS of every gRPC connection in the mesh, where `raglan.tls_files` is configured.

A server accepts callers with a certificate of the authority, and no others. A caller checks that
the callee's certificate holds the service's name: addresses are of no use for that, as
replicas come and go under addresses that no certificate knows.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import grpc

from raglan import tls_files
from raglan.tls_files import Material, TlsFiles


@cache
def _files(*named: str) -> TlsFiles | None:
    return tls_files.configured(dict(zip(tls_files.FILES, named, strict=True)))


def _current() -> TlsFiles | None:
    return _files(*(os.environ.get(name, "") for name in tls_files.FILES))


def for_server() -> grpc.ServerCredentials | None:
    """Return a server's credentials; None is plain text. Each new connection reads the files again.

    Raises:
        TlsError: the files cannot be used.
    """
    files = _current()
    if files is None:
        return None

    def config() -> Any:
        material = files.current()
        return grpc.ssl_server_certificate_configuration(
            [(material.key, material.cert)], root_certificates=material.ca
        )

    return grpc.dynamic_ssl_server_credentials(config(), config, require_client_authentication=True)


def material() -> Material | None:
    """Return the current certificate material for channels; None is plain text.

    Raises:
        TlsError: the files cannot be used.
    """
    files = _current()
    return files.current() if files else None


def channel(
    address: str,
    *,
    service: str,
    options: tuple[tuple[str, Any], ...] = (),
    interceptors: list[grpc.aio.ClientInterceptor] | None = None,
) -> grpc.aio.Channel:
    """A channel to `service` at `address`, by the certificates as they are now.

    Raises:
        TlsError: the files cannot be used.
    """
    found = material()
    if found is None:
        return grpc.aio.insecure_channel(address, options=options, interceptors=interceptors)
    return grpc.aio.secure_channel(
        address,
        _for_caller(found),
        options=(*options, _expected_name(service)),
        interceptors=interceptors,
    )


def blocking_channel(
    address: str, *, service: str, options: tuple[tuple[str, Any], ...] = ()
) -> grpc.Channel:
    """Like `channel`, for a program without an event loop.

    Raises:
        TlsError: the files cannot be used.
    """
    found = material()
    if found is None:
        return grpc.insecure_channel(address, options=options)
    options = (*options, _expected_name(service))
    return grpc.secure_channel(address, _for_caller(found), options=options)


def _for_caller(found: Material) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(found.ca, found.key, found.cert)


def _expected_name(service: str) -> tuple[str, str]:
    return ("grpc.ssl_target_name_override", tls_files.peer_name(service, os.environ))
