"""Twenty sources change at once while the ingester is killed: the index equals them afterwards."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from raglan.v1 import ingester_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")
SOURCES, FILES, KILLS = 20, 15, 4


def texts_of(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*.txt")
        if path.is_file()
    }


def change(root: Path, choice: random.Random, step: int) -> None:
    """Add, change and delete files of every source."""
    for folder in sorted(root.iterdir()):
        present = sorted(folder.rglob("*.txt"))
        for path in choice.sample(present, 3):
            path.unlink()
        for path in choice.sample([path for path in present if path.exists()], 3):
            path.write_text(f"Changed in step {step}: {path.name}.")
        for number in range(3):
            (folder / f"new-{step}-{number}.txt").write_text(f"New in step {step}: {number}.")


async def start(environment: dict[str, str], client_of: Any, port: int) -> tuple[Any, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "raglan_ingester"),
        env=os.environ | environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    client = client_of(f"127.0.0.1:{port}")
    await client.serving()
    return process, client


async def stored(client: Any) -> set[str]:
    found: set[str] = set()
    after = ""
    while True:
        request = ingester_pb2.ListDocumentsRequest(collection="default", limit=1000, after=after)
        page = await client.call(client.stub.ListDocuments, request)
        found |= {each.id for each in page.documents}
        if not (after := page.next_after):
            return found


@pytest.mark.slow
async def test_twenty_sources_change_while_the_ingester_is_killed(
    addresses: dict[str, str],
    retriever: Any,
    tmp_path: Path,
    unused_tcp_port: int,
    client_of: Any,
) -> None:
    choice = random.Random(16)
    root, file = tmp_path / "sources", tmp_path / "sources.yaml"
    for number in range(SOURCES):
        folder = root / f"source-{number}"
        folder.mkdir(parents=True)
        for name in range(FILES):
            (folder / f"{name}.txt").write_text(f"Source {number}, file {name}.")
    # Between two syncs a source may lose more than half of its documents, which are held then.
    entry = {"kind": "folder", "collection": "default", "every": "1s", "delete_after": "1s"}
    entries = [{"name": each.name, "path": str(each), **entry} for each in root.iterdir()]
    file.write_text(yaml.safe_dump({"sources": entries}))
    environment = {
        "RAGLAN_INGESTER_PORT": str(unused_tcp_port),
        "RAGLAN_INGESTER_DATA_DIR": str(tmp_path / "data"),
        "RAGLAN_INGESTER_SOURCES_FILE": str(file),
        **{f"RAGLAN_INGESTER_{k.upper()}": v for k, v in addresses.items()},
    }

    def expected() -> dict[str, str]:
        return {
            f"{folder.name}/{name}": text
            for folder in root.iterdir()
            for name, text in texts_of(folder).items()
        }

    def indexed() -> dict[str, str]:
        chunks = retriever.collections["default"].values()
        return {chunk.document_id: chunk.text for chunk in chunks}

    process, client = await start(environment, client_of, unused_tcp_port)
    try:
        for step in range(KILLS):
            await asyncio.sleep(choice.uniform(0.5, 4))
            change(root, choice, step)
            await asyncio.sleep(choice.uniform(0.1, 2))
            process.send_signal(signal.SIGKILL)
            await process.wait()
            await client.channel.close()
            change(root, choice, 100 + step)
            process, client = await start(environment, client_of, unused_tcp_port)
        async with asyncio.timeout(180):
            while indexed() != expected():
                await asyncio.sleep(0.2)
            while await stored(client) != set(expected()):
                await asyncio.sleep(0.2)
        assert indexed() == expected()  # still, once the documents' rows have settled
    finally:
        await client.channel.close()
        if process.returncode is None:
            process.kill()
        await process.wait()
