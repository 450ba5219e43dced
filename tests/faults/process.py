"""One process of a mesh under test: started, killed, stopped and started again on the same port."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

WRAPPER = Path(__file__).with_name("wrapped.py")
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


@dataclass
class Process:
    """What to run; its output goes to `log`, one start after the other."""

    name: str
    command: Sequence[str]
    variables: Mapping[str, str]
    log: Path
    port: int
    pass_fds: tuple[int, ...] = ()
    _popen: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        assert self._popen is not None, f"{self.name} was never started"
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    def start(self) -> None:
        """Start it; nothing happens when it runs."""
        if self.alive:
            return
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("RAGLAN_")
        }
        with self.log.open("ab") as output:
            self._popen = subprocess.Popen(
                self.command,
                env=environment | dict(self.variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=self.pass_fds,
                preexec_fn=_die_with_parent,
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it lives."""
        if self.alive:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and wait for the end of it."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()

    async def terminate(self, within_s: float = 20.0) -> int:
        """SIGTERM; the exit status. Killed when it does not end in time."""
        assert self._popen is not None
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(within_s):
                while self._popen.poll() is None:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            self.kill()
            raise AssertionError(f"{self.name} did not end within {within_s} s") from None
        return self._popen.returncode


def python_module(module: str) -> list[str]:
    """The command that runs a Python module so that it can be blocked."""
    return [sys.executable, str(WRAPPER), module]


def _die_with_parent() -> None:
    """In the child: what a test that was killed has started must not live on."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
