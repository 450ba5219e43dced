"""Podman with a storage, networks and settings of its own, so that a test touches nothing else."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_PROGRAM: Final = """#!/bin/sh
# Health checks are run by the tests: podman would leave them to systemd, which may not be there;
# before 4.6 it refuses the option of probes at start.
for word in "$@"; do
  shift
  case $word in
    --health-startup-interval) skip=1 ;;
    *) [ "${{skip:-}}" ] || set -- "$@" "$word"; skip= ;;
  esac
done
export CONTAINERS_CONF={settings}
export CONTAINERS_STORAGE_CONF={folder}/storage.conf
export CONTAINERS_REGISTRIES_CONF={folder}/registries.conf
export DISABLE_HC_SYSTEMD=true TMPDIR={folder}/temporary PATH={path}
exec podman --root {folder}/storage --runroot {folder}/run --tmpdir {folder}/run/libpod "$@"
"""


class EngineError(Exception):
    """A command of podman failed; the text has its output."""


class Podman:
    """Runs `podman` on the storage in a folder.

    Args:
        folder: made where it is missing. Short: the sockets in it have long names.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "bin" / "podman"
        """A stand-in for podman that uses this storage, for programs that call it."""
        for name in ("bin", "storage", "run", "networks", "temporary"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._write_settings()

    def _write_settings(self) -> None:
        # By default podman asks for more than a machine may allow, and no container starts.
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        processes = min(4096, resource.getrlimit(resource.RLIMIT_NPROC)[1])
        limits = [f"nofile={files}:{files}", f"nproc={processes}:{processes}"]
        settings = self.folder / "containers.conf"
        settings.write_text(
            f"[containers]\ndefault_ulimits = {json.dumps(limits)}\n"
            '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
            '[network]\nnetwork_backend = "netavark"\n'
            f'network_config_dir = "{self.folder}/networks"\n'
        )
        (self.folder / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{self.folder}/storage"\n'
            f'runroot = "{self.folder}/run"\n'
        )
        (self.folder / "registries.conf").write_text("unqualified-search-registries = []\n")
        self.program.write_text(_PROGRAM.format(folder=self.folder, settings=settings, path=_PATH))
        self.program.chmod(0o755)

    def __call__(
        self,
        *arguments: str,
        timeout_s: float = 120,
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> str:
        """Run `podman ARGUMENTS`; return its standard output, with `check` False also its errors.

        Raises:
            EngineError: it failed.
        """
        return run([str(self.program), *arguments], timeout_s=timeout_s, check=check, env=env)

    def inspect(self, kind: str, name: str) -> dict[str, Any]:
        """What podman knows of an image, a container or a volume."""
        found: list[dict[str, Any]] = json.loads(self(kind, "inspect", name))
        return found[0]

    def size_mb(self, image: str) -> float:
        """Megabytes (10^6) that the layers of an image take on disk."""
        return float(self("image", "inspect", "--format", "{{.Size}}", image)) / 1e6

    def close(self, *, keep: bool) -> None:
        """Remove every container and network of this storage; unless `keep`, all of it."""
        for _ in range(10):  # one that others depend on goes only after them
            if not self("ps", "--all", "--quiet").split():
                break
            self("rm", "--all", "--force", "--time", "1", "--volumes", check=False)
        self("network", "prune", "--force", check=False)
        if keep:
            self("volume", "prune", "--force", check=False)
            return
        subprocess.run(["umount", self.folder / "storage" / "overlay"], capture_output=True)
        shutil.rmtree(self.folder)


def run(
    command: Sequence[str],
    *,
    timeout_s: float,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run a command; return its standard output, with `check` False also its errors.

    Raises:
        EngineError: it failed, or took too long.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{command} took over {timeout_s:.0f} s.") from error
    if done.returncode and check:
        raise EngineError(
            f"{command} ended with {done.returncode}:\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        )
    return done.stdout if check else done.stdout + done.stderr
