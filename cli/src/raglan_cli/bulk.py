"""`raglan bulk`: a folder or bucket into a collection, on the machines of a Ray cluster."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from raglan_cli import runfile
from raglan_cli.client import CollectionOption, Gateway, JsonOption, UrlOption, find_url
from raglan_cli.failure import INTERRUPTED, Failure
from raglan_cli.up import DataOption, data_folder

_MODULE: Final = "raglan_ingester"
_PORTS: Final = {"ingester": 7105, "embedder": 7101, "retriever": 7102}
_AddressOption = typer.Option(
    metavar="HOST:PORT",
    help="Its address as the workers reach it. Default: that of the mesh that runs here.",
)


def bulk(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A folder, or s3://bucket/prefix.")
    ],
    collection: CollectionOption = "default",
    ray: Annotated[
        str,
        typer.Option(
            "--ray", metavar="ADDRESS", help="The Ray cluster, host:port; local starts one here."
        ),
    ] = "local",
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--manifest",
            metavar="FILE",
            help="Takes a line a document; a further run goes on from it. "
            "Default: COLLECTION.manifest.jsonl here.",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="At most; 0 for one a CPU of the cluster.")
    ] = 0,
    endpoint: Annotated[
        str, typer.Option("--endpoint", metavar="URL", help="Of another service than Amazon's S3.")
    ] = "",
    include: Annotated[
        list[str] | None,
        typer.Option("--include", metavar="PATTERN", help="As in .gitignore. May be repeated."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="PATTERN", help="As in .gitignore. May be repeated."),
    ] = None,
    ingester: Annotated[str | None, _AddressOption] = None,
    embedder: Annotated[str | None, _AddressOption] = None,
    retriever: Annotated[str | None, _AddressOption] = None,
    data: DataOption = None,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Ingest a folder or bucket by the workers of a Ray cluster.

    The workers read, parse, cut and embed; the index is what `raglan ingest` makes of the same
    files, and the same files again change nothing. Given again after it broke off, the command goes
    on with what the manifest does not hold. Every worker needs `raglan-ingester[bulk]`, the same
    RAGLAN_ settings, the folder at the same path or credentials of the bucket (AWS_ACCESS_KEY_ID),
    and the services' addresses within reach.

    Examples:

      raglan bulk s3://company-documents/manuals --collection manuals --ray ray-head:6379

      raglan bulk /srv/handbook --collection handbook --ray local --workers 2
    """
    if importlib.util.find_spec(_MODULE) is None or importlib.util.find_spec("ray") is None:
        raise Failure("raglan bulk runs on Ray: `pip install 'raglan-ingester[bulk]'`.")
    with Gateway(find_url(url)) as gateway:
        gateway.create_collection(collection)
    addresses = _addresses(data, ingester=ingester, embedder=embedder, retriever=retriever)
    # In a process of its own: the command line holds no service's code.
    command = [sys.executable, "-m", f"{_MODULE}.bulk", source, "--collection", collection]
    command += ["--ray", ray, "--workers", str(workers), "--endpoint", endpoint]
    command += ["--manifest", str(manifest or f"{collection}.manifest.jsonl")]
    for name, address in addresses.items():
        command += [f"--{name}", address]
    for pattern in include or ():
        command += ["--include", pattern]
    for pattern in exclude or ():
        command += ["--exclude", pattern]
    command += ["--json"] if json else []
    try:
        done = subprocess.run(command, check=False)  # noqa: S603 - our own module
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(done.returncode)


def _addresses(data: Path | None, **given: str | None) -> dict[str, str]:
    """Those given, else those of the mesh on `data`, else the default ports."""
    running = runfile.read_running(data_folder(data))
    services = running["services"] if running else ()
    here = {each["service"]: each["address"] for each in services}
    return {
        name: address or here.get(name) or f"127.0.0.1:{_PORTS[name]}"
        for name, address in given.items()
    }
