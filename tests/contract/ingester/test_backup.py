"""Backup and restore through the command line, on a real index and a real database."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import ports
import pytest
import pytest_asyncio
import yaml
from raglan import access_tags, tenancy
from raglan.deadline import Deadline
from raglan.errors import Conflict, Forbidden, InvalidInput, NotFound, Unavailable
from raglan.rpc import client as rpc
from raglan.v1 import backup_pb2, common_pb2, ingester_pb2, retriever_pb2
from raglan_ingester.clients.index_transfer import IndexTransfer
from real_index import Index, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUCCEEDED = ingester_pb2.JOB_STATUS_SUCCEEDED
TEXT = "Ducks swim on the pond. " * 120
shared = pytest_asyncio.fixture(scope="module", loop_scope="module")


@shared
async def index(
    stack: AsyncExitStack, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Index]:
    held = await serving(stack, tmp_path_factory.mktemp("index"))
    await held.create()
    yield held


@shared
async def addresses(stack: AsyncExitStack, embedder: Any, index: Index, serve: Any) -> Any:
    """The fake embedder, and the real retriever."""
    return {"embedder_address": await serve(embedder), "retriever_address": index.address}


def configure(file: Path, *sources: dict[str, str]) -> None:
    file.write_text(yaml.safe_dump({"sources": list(sources)}))


@pytest.fixture(scope="module")
def sources_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("configured") / "sources.yaml"
    configure(file)
    return file


@pytest.fixture(scope="module")
def changes(sources_file: Path) -> dict[str, Any]:
    return {"sources_file": sources_file}


@pytest.fixture
def raglan(ingester: Any) -> Callable[..., Awaitable[tuple[int, str, str]]]:
    """Runs a command; its status, stdout and stderr."""

    async def run(*arguments: object) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "raglan_cli", *map(str, arguments)),
            *("--ingester", ingester.address),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    return run


async def filled(ingester: Any, documents: dict[str, str]) -> None:
    job = await ingester.ended(await ingester.submit(documents))
    assert job.status == SUCCEEDED, job


async def snapshot(ingester: Any, index: Index, *ids: str) -> list[tuple[Any, list[Any]]]:
    return [(await ingester.document(id_), await index.chunks(id_)) for id_ in ids]


async def test_what_was_backed_up_comes_back_to_the_byte(
    ingester: Any, index: Index, raglan: Any, tmp_path: Path
) -> None:
    texts = {f"d{n}": f"Document {n}. {TEXT}" for n in range(70)} | {"empty-ish": "x"}
    await filled(ingester, texts)
    before = await snapshot(ingester, index, *texts)
    folder = tmp_path / "backup"
    status, out, err = await raglan("backup", folder, "--json")
    assert status == 0, err
    made = json.loads(out)
    assert (made["documents"], made["incomplete"]) == (71, 0)
    assert made["chunks"] == sum(len(chunks) for _, chunks in before)

    await ingester.delete("d1")
    await filled(ingester, {"d2": "Quite another text.", "new": "Not in the backup."})
    status, _, err = await raglan("restore", folder)
    assert status == 1
    assert "holds documents (default)" in err
    assert "--replace" in err
    assert err.count("\n") == 1
    assert (await ingester.document("new")).text == "Not in the backup."

    status, out, err = await raglan("restore", folder, "--replace")
    assert status == 0, err
    assert out.startswith("Restored 71 documents")
    assert await snapshot(ingester, index, *texts) == before
    assert await index.count("new") == [0]
    assert (await ingester.ended(await ingester.submit({"d0": texts["d0"]}))).unchanged == 1


async def test_earlier_versions_are_in_a_backup(
    ingester: Any, index: Index, raglan: Any, tmp_path: Path
) -> None:
    name = "history"
    await index.create(name, max_versions=3)
    ends = []
    for number in range(3):
        submitted = await ingester.submit({"d": f"The shared text {number}. {TEXT}"}, name)
        assert (await ingester.ended(submitted)).status == SUCCEEDED
        ends.append((await ingester.document("d", name)).valid_from.ToMilliseconds())
    texts = [await index.texts(name, at) for at in ends]
    assert len({*map(frozenset, texts)}) == 3
    request = ingester_pb2.GetDocumentRequest(collection=name, document_id="d", version=2)
    second = await ingester.call(ingester.stub.GetDocument, request)
    folder = tmp_path / "backup"
    status, out, err = await raglan("backup", folder, "--json")
    assert status == 0, err
    assert json.loads(out)["incomplete"] == 0
    await ingester.delete("d", name)
    assert await index.size(name) == 0
    status, _, err = await raglan("restore", folder, "--replace")
    assert status == 0, err
    assert [await index.texts(name, at) for at in ends] == texts
    assert await ingester.call(ingester.stub.GetDocument, request) == second
    await ingester.delete("d", name)
    assert await index.size(name) == 0


async def test_tenants_collections_are_in_a_backup_and_come_back_to_them(
    ingester: Any, index: Index, raglan: Any, tmp_path: Path
) -> None:
    """One id and one name, two owners."""
    await filled(ingester, {"d": f"Everyone's. {TEXT}"})
    with tenancy.serving("acme"):
        await index.create()
        await filled(ingester, {"d": f"Acme's own. {TEXT}", "e": TEXT})
        before = await snapshot(ingester, index, "d", "e")
    own = await snapshot(ingester, index, "d")
    folder = tmp_path / "backup"
    status, out, err = await raglan("backup", folder, "--json")
    assert status == 0, err
    assert json.loads(out)["documents"] == 3
    with tenancy.serving("acme"):
        await filled(ingester, {"d": "Replaced."})
    status, _, err = await raglan("restore", folder, "--replace")
    assert status == 0, err
    assert await snapshot(ingester, index, "d") == own
    with tenancy.serving("acme"):
        assert await snapshot(ingester, index, "d", "e") == before
        assert before[0][0].text.startswith("Acme's own.")
        assert before[0][0].collection == "default"
        with pytest.raises(Forbidden, match="Backups cover the whole mesh"):
            await ingester.call(ingester.stub.EndImport, ingester_pb2.EndImportRequest())
        await ingester.delete("d")
        await ingester.delete("e")


async def test_a_job_that_waits_is_done_after_the_restore(
    ingester: Any, index: Index, raglan: Any, embedder: Any, tmp_path: Path, until: Any
) -> None:
    """Its upload was acknowledged, so it may not be lost."""
    await filled(ingester, {"ready": TEXT})
    embedder.gate.clear()
    job = await ingester.submit({"waiting": f"Wait. {TEXT}", "ready": f"New. {TEXT}"})
    status, _, err = await raglan("backup", tmp_path / "b")
    assert status == 0, err
    embedder.gate.set()
    await ingester.ended(job)

    status, _, err = await raglan("restore", tmp_path / "b", "--replace")
    assert status == 0, err
    ended = await ingester.ended(await ingester.job(job.id), timeout_s=60)
    assert ended.status == SUCCEEDED
    assert (await ingester.document("waiting")).text.startswith("Wait.")
    assert (await ingester.document("ready")).text.startswith("New.")
    documents = [await ingester.document(id_) for id_ in ("waiting", "ready")]
    assert await index.count("waiting", "ready") == [each.chunks for each in documents]


async def test_a_gateway_that_starts_meanwhile_makes_no_restore_fail(
    ingester: Any, index: Index, raglan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes the default collection, which the restore has dropped and not yet made."""
    await filled(ingester, {"kept": TEXT})
    assert (await raglan("backup", tmp_path / "b"))[0] == 0

    drop = IndexTransfer.drop
    made: list[str] = []

    async def and_made(transfer: IndexTransfer, name: str) -> None:
        await drop(transfer, name)
        if name == "default" and not made:
            made.append(name)
            await index.create()

    with monkeypatch.context() as patch:
        patch.setattr(IndexTransfer, "drop", and_made)
        status, _, err = await raglan("restore", tmp_path / "b", "--replace")
    assert status == 0, err
    assert await index.count("kept") == [(await ingester.document("kept")).chunks]


async def test_documents_that_change_meanwhile_are_whole_in_the_backup(
    ingester: Any, index: Index, raglan: Any, tmp_path: Path
) -> None:
    await filled(ingester, {f"d{n}": f"Version 0 of {n}. {TEXT}" for n in range(40)})
    stop = asyncio.Event()

    async def change() -> int:
        version = 0
        while not stop.is_set():
            version += 1
            texts = {f"d{n}": f"Version {version} of {n}. {TEXT}" for n in range(0, 40, 3)}
            await filled(ingester, texts)
        return version

    changing = asyncio.create_task(change())
    for number in range(3):
        status, out, err = await raglan("backup", tmp_path / f"b{number}", "--json")
        assert status == 0, err
        assert json.loads(out)["incomplete"] == 0
    stop.set()
    assert await changing > 1

    status, _, err = await raglan("restore", tmp_path / "b1", "--replace")
    assert status == 0, err
    for n in range(40):
        document, chunks = (await snapshot(ingester, index, f"d{n}"))[0]
        assert len(chunks) == document.chunks > 0
        for chunk in chunks:
            assert document.text[chunk.start : chunk.end] == chunk.text


async def test_an_edit_while_the_backup_is_made_holds_though_the_job_runs_again(
    ingester: Any, index: Index, embedder: Any, until: Any
) -> None:
    units: list[list[Any]] = []

    async def export(count: int) -> None:
        while len(units) < count and not (units and not units[-1][-1].end.cursor):
            cursor = units[-1][-1].end.cursor if units else ""
            request = ingester_pb2.ExportRequest(cursor=cursor)
            records = rpc.stream(ingester.stub.Export, request, deadline=Deadline.after(30))
            units.append([record async for record in records])

    embedder.gate.clear()
    job = await ingester.submit({"edited": TEXT})
    await until(lambda: embedder.in_flight > 0)
    await export(2)  # the header, and the job as it waits
    embedder.gate.set()
    assert (await ingester.ended(job)).status == SUCCEEDED
    update = ingester_pb2.UpdateDocumentRequest(
        collection="default", document_id="edited", metadata_json='{"year":2026}'
    )
    await ingester.call(ingester.stub.UpdateDocument, update)
    await export(100)

    begin = ingester_pb2.BeginImportRequest(
        backup_id="edits", header=units[0][0].header, replace=True
    )
    await ingester.call(ingester.stub.BeginImport, begin)

    async def requests(number: int) -> AsyncIterator[Any]:
        unit = ingester_pb2.ImportUnit(backup_id="edits", number=number)
        yield ingester_pb2.ImportRequest(unit=unit)
        for record in units[number]:
            yield ingester_pb2.ImportRequest(record=record)

    for number in range(1, len(units)):
        await ingester.call(ingester.stub.Import, requests(number))
    ended = ingester_pb2.EndImportRequest(backup_id="edits")
    await ingester.call(ingester.stub.EndImport, ended)
    done = await ingester.ended(job)
    assert (done.status, done.unchanged) == (SUCCEEDED, 1)
    assert (await ingester.document("edited")).metadata_json == '{"year":2026}'
    assert {chunk.metadata_json for chunk in await index.chunks("edited")} == {'{"year":2026}'}


async def test_chunks_that_the_index_has_lost_are_made_again(
    ingester: Any, index: Index, raglan: Any, tmp_path: Path, until: Any
) -> None:
    await filled(ingester, {"lost": TEXT, "kept": TEXT})
    expected = await index.count("lost", "kept")
    for attempt in range(5):  # the loss may be repaired before the backup comes to it
        await index.lose("lost")
        status, out, _ = await raglan("backup", backup := tmp_path / f"b{attempt}", "--json")
        assert status == 0, out
        if json.loads(out)["incomplete"]:
            break
    assert json.loads(out)["incomplete"] == 1
    status, _, err = await raglan("restore", backup, "--replace")
    assert status == 0, err

    async def whole() -> bool:
        return await index.count("lost", "kept") == expected

    await until(whole)


async def test_metadata_and_access_tags_that_were_changed_are_restored(
    ingester: Any, index: Index, raglan: Any, tmp_path: Path
) -> None:
    await filled(ingester, {"tagged": TEXT})
    update = ingester_pb2.UpdateDocumentRequest(
        collection="default", document_id="tagged", metadata_json='{"year":2026}',
        access=ingester_pb2.AccessTags(tags=["hr"]),
    )  # fmt: skip
    await ingester.call(ingester.stub.UpdateDocument, update)
    assert (await raglan("backup", tmp_path / "b"))[0] == 0
    status, _, err = await raglan("restore", tmp_path / "b", "--replace")
    assert status == 0, err
    row = await ingester.document("tagged")
    assert (row.metadata_json, list(row.access)) == ('{"year":2026}', ["hr"])
    assert await index.count("tagged") == [0]  # for a caller without tags
    with access_tags.serving(("hr",)):
        metadata = access_tags.to_metadata()
        request = retriever_pb2.GetDocumentChunksRequest(collection="default", document_id="tagged")
        held = await index.stub.GetDocument(request, timeout=10, metadata=metadata)
    assert {(c.metadata_json, *c.access) for c in held.chunks} == {('{"year":2026}', "hr")}


async def test_sources_look_at_every_document_anew_after_a_restore(
    ingester: Any, raglan: Any, sources_file: Path, tmp_path: Path, until: Any
) -> None:
    folder, name = tmp_path / "documents", f"s{time.time_ns()}"
    folder.mkdir()
    (folder / "a.txt").write_text("Older text.")
    entry = {"name": name, "kind": "folder", "path": str(folder), "every": "1d"}
    configure(sources_file, entry | {"collection": "default"})

    def holds(text: str) -> Callable[[], Awaitable[bool]]:
        async def check() -> bool:
            with suppress(NotFound):
                return bool((await ingester.document(f"{name}/a.txt")).text.strip() == text)
            return False

        return check

    await until(holds("Older text."), 30)
    assert (await raglan("backup", tmp_path / "b"))[0] == 0
    (folder / "a.txt").write_text("Newer text.")
    request = ingester_pb2.SyncSourceRequest(source=name)
    await ingester.call(ingester.stub.SyncSource, request)
    await until(holds("Newer text."), 30)
    status, _, err = await raglan("restore", tmp_path / "b", "--replace")
    assert status == 0, err
    await until(holds("Newer text."), 30)
    configure(sources_file)


async def test_a_restore_that_was_cut_off_goes_on_and_takes_no_documents_until_then(
    ingester: Any, index: Index, raglan: Any, tmp_path: Path
) -> None:
    await filled(ingester, {"d": TEXT})
    before = await snapshot(ingester, index, "d")
    status, out, _ = await raglan("backup", tmp_path / "b", "--json")
    header = await first_record(ingester)
    begin = ingester_pb2.BeginImportRequest(
        backup_id=json.loads(out)["id"], header=header, replace=True
    )
    progress = await ingester.call(ingester.stub.BeginImport, begin)
    assert progress.units == 1
    with pytest.raises(Unavailable, match="being restored"):
        await ingester.submit({"no": TEXT})

    status, _, err = await raglan("restore", tmp_path / "b")
    assert status == 0, err
    assert await snapshot(ingester, index, "d") == before
    await filled(ingester, {"yes": TEXT})


async def test_another_backup_waits_for_the_one_that_was_cut_off(
    ingester: Any, raglan: Any, tmp_path: Path
) -> None:
    await filled(ingester, {"d": TEXT})
    assert (await raglan("backup", tmp_path / "b"))[0] == 0
    begin = ingester_pb2.BeginImportRequest(
        backup_id="another", header=await first_record(ingester), replace=True
    )
    await ingester.call(ingester.stub.BeginImport, begin)
    status, _, err = await raglan("restore", tmp_path / "b")
    assert status == 1
    assert "another backup (another) was cut off here" in err
    status, out, err = await raglan("restore", "--abandon")
    assert (status, out.strip()) == (0, "The restore has ended; what it restored stays."), err
    assert (await raglan("restore", "--abandon"))[0] == 1


async def test_a_unit_is_restored_once_and_whole_or_not_at_all(
    ingester: Any, index: Index, raglan: Any, tmp_path: Path
) -> None:
    header = await first_record(ingester)
    begin = ingester_pb2.BeginImportRequest(backup_id="units", header=header, replace=True)
    await ingester.call(ingester.stub.BeginImport, begin)
    row = {"collection": "default", "id": "d", "job_id": "j", "state": "ready", "sha256": "0",
           "size_bytes": 1, "created_ms": 1}  # fmt: skip
    record = backup_pb2.BackupRecord(
        row=backup_pb2.BackupRow(table="documents", json=json.dumps(row))
    )
    end = backup_pb2.BackupRecord(end=backup_pb2.BackupEnd())

    async def send(number: int, *records: Any, backup_id: str = "units") -> int:
        async def requests() -> AsyncIterator[Any]:
            unit = ingester_pb2.ImportUnit(backup_id=backup_id, number=number)
            yield ingester_pb2.ImportRequest(unit=unit)
            for each in records:
                yield ingester_pb2.ImportRequest(record=each)

        return int((await ingester.call(ingester.stub.Import, requests())).units)

    with pytest.raises(InvalidInput, match="cut short"):
        await send(1, record)
    with pytest.raises(Exception, match="no document 'd'"):
        await ingester.document("d")
    with pytest.raises(InvalidInput, match="Unit 5 came; the next one is 1"):
        await send(5, record, end)
    with pytest.raises(Conflict, match="No restore"):
        await send(1, record, end, backup_id="other")
    wrong = backup_pb2.BackupPiece(
        kind=backup_pb2.PIECE_KIND_BLOB, data=b"x", is_last=True, sha256="00"
    )
    with pytest.raises(InvalidInput, match="have the hash"):
        await send(1, backup_pb2.BackupRecord(piece=wrong), end)
    assert await send(1, record, end) == 2
    assert await send(1, record, end) == 2
    assert (await ingester.document("d")).id == "d"
    await ingester.call(ingester.stub.EndImport, ingester_pb2.EndImportRequest())


async def test_a_backup_of_another_model_is_refused_before_anything_goes(
    ingester: Any, raglan: Any, embedder: Any, tmp_path: Path
) -> None:
    await filled(ingester, {"d": TEXT})
    assert (await raglan("backup", tmp_path / "b"))[0] == 0
    embedder.model = common_pb2.ModelIdentity(id="newer", revision="2", dimension=16)
    status, _, err = await raglan("restore", tmp_path / "b", "--replace")
    assert status == 1
    assert "was embedded by fake at revision 1 with 8 dimensions" in err
    assert "newer at revision 2 with 16" in err
    assert (await ingester.document("d")).text


@pytest.mark.parametrize("newer", [{"format": 2}, {"schema": "9999"}])
async def test_a_backup_of_a_newer_version_is_refused(ingester: Any, newer: dict[str, Any]) -> None:
    header = await first_record(ingester)
    for name, value in newer.items():
        setattr(header, name, value)
    begin = ingester_pb2.BeginImportRequest(backup_id="b", header=header, replace=True)
    with pytest.raises(Conflict, match="is newer than this one"):
        await ingester.call(ingester.stub.BeginImport, begin)


async def test_a_cursor_of_another_deployment_is_refused(ingester: Any) -> None:
    with pytest.raises(Conflict, match="begun on another deployment"):
        await first_record(ingester, '["0", "jobs", "", ""]')
    with pytest.raises(InvalidInput, match="not one of a backup"):
        await first_record(ingester, "garbage")


async def test_a_full_disk_loses_nothing(
    ingester: Any, index: Index, raglan: Any, tmp_path: Path
) -> None:
    """Of a process that may write no more than 256 KB to a file; then again without that limit."""
    await filled(ingester, {f"d{n}": f"{n} {TEXT}" for n in range(100)})
    limited = f"ulimit -f 256; exec {sys.executable} -m raglan_cli backup {tmp_path / 'b'}"
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", f"{limited} --ingester {ingester.address}"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert process.returncode == 1
    assert "cannot be written: File too large. When that is fixed, the same" in err.decode()
    assert len(err.decode().splitlines()) == 1

    status, out, told = await raglan("backup", tmp_path / "b")
    assert status == 0, told
    assert "Going on with the backup" in told
    assert out.startswith("Backed up 100 documents")
    assert (await raglan("restore", tmp_path / "b", "--check"))[0] == 0


async def test_an_ingester_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    address = f"127.0.0.1:{ports.free_port()}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "raglan_cli", "backup", str(tmp_path), "--ingester", address),
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert (process.returncode, err.decode()) == (
        1,
        f"{address}: The ingester cannot be reached.\n",
    )


async def test_folders_that_cannot_be_used_are_said_in_one_line(
    raglan: Any, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for arguments in (
        ("backup", file / "b"),
        ("backup", tmp_path),
        ("backup", "/sys/raglan"),
        ("restore", tmp_path / "nothing"),
        ("restore", file),
        ("restore", tmp_path, "--check"),
    ):
        status, out, err = await raglan(*arguments)
        assert status == 1
        assert out == ""
        assert len(err.splitlines()) == 1, err


async def first_record(ingester: Any, cursor: str = "") -> Any:
    replies = rpc.stream(
        ingester.stub.Export,
        ingester_pb2.ExportRequest(cursor=cursor),
        deadline=Deadline.after(10),
    )
    records = [record async for record in replies]
    return records[0].header
