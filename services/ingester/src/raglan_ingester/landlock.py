"""Landlock: a Linux process drops its rights to files, ports and signals that it does not need.

The kernel's interface is three system calls, the same on every architecture
(docs.kernel.org/userspace-api/landlock.html). What a kernel does not know yet is left out.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38

_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_FILE_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 5: 16}
"""ABI -> how many rights on files it knows; each is a bit."""

_TCP_BIND_AND_CONNECT: Final = 0b11
_NET_SINCE: Final = 4
_ABSTRACT_SOCKETS_AND_SIGNALS: Final = 0b11
_SCOPES_SINCE: Final = 6

_libc: Final = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def abi() -> int:
    """The kernel's version of Landlock; 0 where it has none."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, 0, _VERSION)))


def restrict_to_reading(readable: Iterable[Path]) -> int:
    """Let this thread, and those it starts, read files under `readable`, and no others.

    Nothing can be written, made, run or removed; where the kernel knows how, no TCP port can be
    bound or connected to, and no process outside be signalled. Descriptors that are open stay so.

    Returns:
        The kernel's version of Landlock; 0 where it has none, and nothing is restricted.
    """
    version = abi()
    if not version:
        return 0
    known = max(rights for since, rights in _FILE_RIGHTS.items() if since <= version)
    ruleset = _Ruleset(
        (1 << known) - 1,
        _TCP_BIND_AND_CONNECT if version >= _NET_SINCE else 0,
        _ABSTRACT_SOCKETS_AND_SIGNALS if version >= _SCOPES_SINCE else 0,
    )
    rules = _checked(_CREATE_RULESET, ctypes.byref(ruleset), ctypes.sizeof(ruleset), 0)
    try:
        for path in readable:
            _allow(rules, path)
        if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise _last_error()
        _checked(_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)
    return version


def _allow(rules: int, path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # what is not there need not be read
        return
    try:
        rights = _READ_FILE | _READ_DIR if path.is_dir() else _READ_FILE
        rule = _PathBeneath(rights, descriptor)
        _checked(_ADD_RULE, rules, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(descriptor)


def _checked(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        raise _last_error()
    return result


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
