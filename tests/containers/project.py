"""The Compose file, started by podman-compose from a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import ports
from containers import build
from containers.engine import Podman, run
from containers.services import image

_NAME: Final = "raglan-test"
_UP_S: Final = 240


class Project:
    """A running mesh of containers; `address` is its gateway on this machine."""

    def __init__(self, podman: Podman, folder: Path) -> None:
        self.podman = podman
        self.folder = folder
        self.address = f"http://127.0.0.1:{(port := ports.free_port())}"
        shutil.copytree(build.REPOSITORY / "deploy/compose", folder, dirs_exist_ok=True)
        run(["sh", "init.sh"], timeout_s=30, cwd=folder)
        with (folder / ".env").open("a") as file:
            file.write(
                f"\nPUBLISH=127.0.0.1:{port}\nRAGLAN_GATEWAY_ADMIN_KEY_FILE=\nREDIS_IMAGE={build.REDIS}\n"
                f"POSTGRES_IMAGE={build.POSTGRES}\n"
            )

    def compose(self, *arguments: str, timeout_s: float = _UP_S) -> str:
        """Run podman-compose."""
        return run(
            [
                *(sys.executable, "-m", "podman_compose"),
                *("--podman-path", str(self.podman.program)),
                *("--project-name", _NAME, "--in-pod", "false", *arguments),
            ],
            timeout_s=timeout_s,
            cwd=self.folder,
        )

    def raglan(self, *arguments: str) -> str:
        """Run the command line in a container, with a volume of its own for what it writes."""
        return self.podman(
            "run", "--rm", "--network", f"{_NAME}_default", "--read-only", "--tmpfs=/tmp",
            "--volume", f"{_NAME}-backup:/var/lib/raglan", image("cli"), *arguments,
            timeout_s=_UP_S,
        )  # fmt: skip

    def down(self, *options: str) -> None:
        """Stop and remove all containers; podman-compose forgets those of `--scale`."""
        self.compose("down", *options)
        for name in self.podman("ps", "--all", "--format", "{{.Names}}").split():
            self.podman("rm", "--force", "--time", "20", name)

    def containers(self, service: str) -> list[str]:
        """Names of the containers of a service, whatever their state."""
        label = f"label=com.docker.compose.service={service}"
        return sorted(
            self.podman("ps", "--all", "--filter", label, "--format", "{{.Names}}").split()
        )

    def crash(self, container: str) -> None:
        """End a container's process as the kernel does that is out of memory."""
        os.kill(self.podman.inspect("container", container)["State"]["Pid"], signal.SIGKILL)

    def logs(self) -> str:
        """The last lines of every container."""
        names = self.podman("ps", "--all", "--format", "{{.Names}}").split()
        return "\n".join(
            f"== {name}\n{self.podman('logs', '--tail', '15', name, check=False)}" for name in names
        )

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """A client of the gateway."""
        with httpx.Client(base_url=self.address, timeout=60, trust_env=False) as client:
            yield client

    def status(self, service: str) -> list[dict[str, Any]]:
        """What the gateway knows of each replica of a service."""
        with self.client() as client:
            replicas = client.get("/v1/status").json()["services"]
        return [each for each in replicas if each["service"] == service]

    def wait(self, met: Callable[[], bool], what: str, timeout_s: float = _UP_S) -> None:
        """Wait until `met()`; errors of the connection mean not yet."""
        begun = time.monotonic()
        while True:
            try:
                if met():
                    return
            except httpx.HTTPError:
                pass
            waited_s = time.monotonic() - begun
            assert waited_s < timeout_s, f"not after {waited_s:.0f} s: {what}\n{self.logs()}"
            time.sleep(0.5)

    def wait_until_full(self) -> None:
        """Wait until every service is there and queries lack nothing."""

        def full() -> bool:
            with self.client() as client:
                return client.get("/readyz").json().get("rung") == "full"

        self.wait(full, "the gateway lacks nothing")
