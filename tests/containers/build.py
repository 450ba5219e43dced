"""The images of the tests: a base of Debian's packages, Redis, PostgreSQL, and ours on it."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from containers.engine import Podman, run

REPOSITORY: Final = Path(__file__).parents[2]
PYTHON: Final = "localhost/test/python:bookworm"
REDIS: Final = "localhost/test/redis:bookworm"
POSTGRES: Final = "localhost/test/postgres:bookworm"
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BUILD_S: Final = 900
_UNUSED: Final = ("usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man")


def python_base(podman: Podman) -> None:
    """Import a Debian with Python 3.11 as `PYTHON`, slim as the official image is."""
    with tempfile.TemporaryDirectory(dir=podman.folder / "temporary") as folder:
        root = Path(folder, "root")
        included = "--include=python3,python3-venv,ca-certificates"
        run(
            ["debootstrap", "--variant=minbase", included, "bookworm", str(root)],
            timeout_s=_BUILD_S,
            env={"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
        )
        for unused in (*_UNUSED, "var/cache/apt", "var/lib/apt/lists"):
            shutil.rmtree(root / unused, ignore_errors=True)
        archive = Path(folder, "root.tar")
        run(["tar", "-C", str(root), "-cf", str(archive), "."], timeout_s=_BUILD_S)
        podman("import", "--change", f"ENV PATH={_PATH}", str(archive), PYTHON, timeout_s=_BUILD_S)


def store_images(podman: Podman) -> None:
    """Build `REDIS` and `POSTGRES`, which take the settings that the official images take."""
    for name, image in (("redis", REDIS), ("postgres", POSTGRES)):
        podman(
            "build",
            "--network=host",
            "--format=docker",
            f"--build-arg=BASE_IMAGE={PYTHON}",
            f"--file={Path(__file__).parent}/stores/{name}.Dockerfile",
            f"--tag={image}",
            str(Path(__file__).parent / "stores"),
            timeout_s=_BUILD_S,
        )


def own_images(podman: Podman, *names: str) -> None:
    """Build images of ours by `deploy/images/build.sh`, by default all."""
    configuration = podman.folder / "pip.conf"
    text, folders = package_sources()
    configuration.write_text(text)
    options = [
        "--network=host",
        f"--build-arg=BASE_IMAGE={PYTHON}",
        "--build-arg=TORCH_INDEX=",
        f"--secret=id=pip_conf,src={configuration}",
        *(f"--volume={folder}:{folder}:ro" for folder in folders),
    ]
    run(
        ["deploy/images/build.sh", *names],
        timeout_s=_BUILD_S,
        env={"ENGINE": str(podman.program), "BUILD_OPTIONS": " ".join(options)},
        cwd=REPOSITORY,
    )


def package_sources() -> tuple[str, list[Path]]:
    """(configuration of pip, folders it refers to), so that a build has this machine's sources."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings: dict[str, str] = {}
    folders: set[Path] = set()
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        option, words = key.rpartition(".")[2], str(ast.literal_eval(value)).split()
        if option == "constraint":  # the images have their own
            continue
        settings[option] = " ".join(words)
        for word in words:
            path = Path(word.removeprefix("file://"))
            if path.is_absolute() and path.exists():
                # The pages of an index link to files beside it.
                folders.add(path.parent if path.is_file() or word != str(path) else path)
    lines = [f"{option} = {value}" for option, value in settings.items()]
    return "\n".join(["[global]", *lines, ""]), sorted(folders)
