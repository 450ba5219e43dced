"""Confinement of a parser process: no files of others, no network, no programs.

Parsers read what strangers wrote. Whatever breaks in one, breaks in here. Several mechanisms lie
over each other, as far as the system has them; `confine` says which are in force.
"""

from __future__ import annotations

import ctypes
import mimetypes
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from raglan_ingester import landlock

LANDLOCK: Final = "landlock"
"""The kernel refuses files, TCP and signals. Reading the user's files is refused by this alone."""

SECCOMP: Final = "seccomp"
"""The kernel refuses system calls for sockets, programs, tracing and keys."""

NETWORK_NAMESPACE: Final = "network_namespace"
"""The process has a network of its own, with nothing in it."""

AUDIT_HOOK: Final = "audit_hook"
"""Python refuses files, sockets and programs; native code that was taken over does not ask it."""

_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_PR_SET_PDEATHSIG: Final = 1
_EPERM: Final = 1
_REFUSED: Final = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork")
_LOOKING: Final = frozenset({"open", "os.listdir", "os.scandir"})

_SYSTEM_CALLS: Final = (
    *("socket", "socketpair", "connect", "bind", "listen", "accept", "accept4", "io_uring_setup"),
    *("execve", "execveat", "fork", "vfork", "kill", "tkill", "pidfd_open", "pidfd_getfd"),
    *("ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "bpf", "perf_event_open"),
    *("keyctl", "add_key", "request_key", "userfaultfd", "open_by_handle_at", "name_to_handle_at"),
    *("unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "fsopen", "open_tree"),
    *("init_module", "finit_module", "kexec_load", "reboot", "swapon", "acct", "quotactl"),
)
"""Parsing needs none of them. Threads are begun by `clone`, which therefore stays."""

_LIBRARIES: Final = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"),
    *("/usr/share/zoneinfo", "/etc/localtime", "/etc/ssl/openssl.cnf", "/dev/null", "/dev/urandom"),
    "/sys/devices/system/cpu",
)


def confine(memory_bytes: int, readable: Iterable[Path] = ()) -> list[str]:
    """Give up, for the life of this process, what parsing does not need.

    Call it before any thread is begun: what is there already is not confined with it.

    Args:
        memory_bytes: of address space.
        readable: readable folders in addition to Python's own.

    Returns:
        The mechanisms in force.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    allowed = [*_python_folders(), *map(Path, (*_LIBRARIES, *mimetypes.knownfiles)), *readable]
    active = []
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        active.append(NETWORK_NAMESPACE)
    filtering = _seccomp_filter()  # the library is loaded before files are refused
    if landlock.restrict_to_reading(allowed):
        active.insert(0, LANDLOCK)
    if filtering is not None:
        filtering()
        active.append(SECCOMP)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(_refusing(tuple(os.path.realpath(path) for path in allowed)))
    return [*active, AUDIT_HOOK]


def allow_cpu(seconds: int) -> None:
    """End this process with SIGXCPU after `seconds` more of CPU time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def _python_folders() -> set[Path]:
    """Return the folders of importable modules and their data."""
    libraries = {Path(prefix) / "lib" for prefix in (sys.prefix, sys.base_prefix)}
    return {Path(entry) for entry in sys.path if entry} | libraries


def _seccomp_filter() -> Callable[[], None] | None:
    """Return the function that loads the filter; None without libseccomp or kernel support."""
    try:
        import pyseccomp
    except (ImportError, OSError, RuntimeError):
        return None
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in _SYSTEM_CALLS:
        try:
            rules.add_rule(pyseccomp.ERRNO(_EPERM), name)
        except (OSError, ValueError):  # not of this architecture, or newer than the library
            continue
    load: Callable[[], None] = rules.load
    return load


def _refusing(allowed: tuple[str, ...]) -> Callable[[str, tuple[Any, ...]], None]:
    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(_REFUSED):
            raise PermissionError(f"A parser may not do this: {event}")
        if event in _LOOKING and isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if not any(path == root or path.startswith(f"{root}/") for root in allowed):
                raise PermissionError(f"A parser may not read {path}")

    return refuse


def quiet_standard_streams() -> tuple[int, int]:
    """Keep stdin and stdout for the protocol, as new descriptors; what libraries print is lost."""
    requests, replies = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    return requests, replies
