"""The command line against a real mesh: what becomes of files, and of the user's collections."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import mesh_process
import pytest

COMMAND_S = 120.0

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def raglan(mesh: mesh_process.Mesh, tmp_path: Path) -> Run:
    environment = os.environ | {
        "RAGLAN_URL": mesh.url,
        "RAGLAN_HISTORY": str(tmp_path / "history.jsonl"),
    }

    def run(*words: str | Path, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "raglan_cli", *map(str, words)],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )

    return run


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for name in ("a.md", 'say "hi".md', "back\\slash.md", "100%25 é.md"):
        (folder / name).write_text(f"What stands in {name}.")
    return folder


def ids(client: httpx.Client, collection: str) -> set[str]:
    found = client.get(f"/v1/collections/{collection}/documents").json()["documents"]
    return {document["id"] for document in found}


def report(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_folder_is_one_set_of_documents_from_wherever_it_is_ingested(
    client: httpx.Client, collection: str, raglan: Run, docs: Path
) -> None:
    """The names that the command predicts are those that the mesh gives: pruning spares them."""
    assert raglan("ingest", "docs", "-c", collection).returncode == 0
    before = ids(client, collection)
    assert len(before) == 4
    for words, cwd in ((["."], docs), ([docs], Path("/"))):
        again = report(raglan("ingest", *words, "-c", collection, "--prune", "--json", cwd=cwd))
        assert (again["unchanged"], again["removed"]) == (4, [])
    preview = report(raglan("ingest", "docs", "-c", collection, "--dry-run", "--json"))
    assert set(preview["unchanged"]) == before == ids(client, collection)


def test_files_that_cannot_be_sent_fail_alone(
    client: httpx.Client, collection: str, raglan: Run, docs: Path
) -> None:
    (docs / os.fsdecode(b"caf\xe9.md")).write_text("Latin-1.")
    (docs / "pw.txt").symlink_to("/etc/passwd")
    done = raglan("ingest", "docs", "-c", collection)
    assert done.returncode == 1
    assert done.stderr.strip() == "docs/caf\\xe9.md: Its name is not UTF-8; rename the file."
    assert "(a link that leads out of the folder): docs/pw.txt" in done.stdout
    assert len(ids(client, collection)) == 4


def test_a_changed_file_replaces_and_one_that_is_gone_is_pruned(
    client: httpx.Client, collection: str, raglan: Run, docs: Path
) -> None:
    raglan("ingest", "docs", "-c", collection, "--metadata", "team=search")
    (docs / "a.md").write_text("Another text.")
    (docs / 'say "hi".md').unlink()
    done = raglan("ingest", "docs", "-c", collection, "--metadata", "team=search", "--prune")
    assert "2 unchanged, 1 replaced, 1 deleted, 0 failed" in done.stdout
    assert "Deleted docs/say %22hi%22.md, whose file is gone." in done.stdout
    [kept] = [
        each
        for each in client.get(f"/v1/collections/{collection}/documents").json()["documents"]
        if each["id"] == "docs/a.md"
    ]
    assert kept["metadata"] == {"team": "search"}


def test_an_empty_collection_is_listed_and_what_is_deleted_is_gone(
    client: httpx.Client, collection: str, raglan: Run, docs: Path
) -> None:
    empty = raglan("list", "-c", collection)
    assert (empty.returncode, empty.stderr) == (0, "")
    assert f"The collection {collection} holds no documents" in empty.stdout
    raglan("ingest", docs / "a.md", "-c", collection)
    done = raglan("delete", "docs/a.md", "..", "-c", collection)
    assert done.returncode == 1
    assert done.stdout.strip() == "Deleted 1 document (1 chunk)."
    assert done.stderr.strip() == f"There is no document .. in {collection}."
    assert client.get(f"/v1/collections/{collection}").json()["documents"] == 0


def test_an_evaluation_leaves_the_users_collection_alone(
    client: httpx.Client, collection: str, raglan: Run, docs: Path, tmp_path: Path
) -> None:
    """An evaluation leaves the users collection alone and ranks beside a long document."""
    lines = (
        f"The lighthouse {i} stands on the coast, and its lamp turns every {i} seconds."
        for i in range(1_500)
    )
    corpus = [{"_id": "long", "text": " ".join(lines)}]
    corpus += [{"_id": f"s{i}", "text": f"Note {i} on the lamp of a lighthouse."} for i in range(9)]
    folder = tmp_path / "set"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "lighthouse lamp on the coast"}')
    (folder / "qrels" / "test.tsv").write_text("q\ts7\t1\n")
    raglan("ingest", "docs", "-c", collection)
    before = ids(client, collection)

    refused = raglan("eval", "set", "-c", collection, "--no-keep")
    assert refused.returncode == 2
    assert ids(client, collection) == before

    done = raglan("eval", "set", "--no-keep", "--run", "a.run", "--json")
    assert report(done)["search"]["recall_at_50"] == 1.0
    assert len((tmp_path / "a.run").read_text().splitlines()) == len(corpus)
    names = [each["name"] for each in client.get("/v1/collections").json()["collections"]]
    assert not [name for name in names if name.startswith("eval-set-")]


INTERRUPTED_IMPORT = """
import os, signal, sys
from raglan_cli import __main__

# A process that was started in the background ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)

class Interrupting:
    def find_spec(self, name, *rest):
        if name == "raglan_cli.commands":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
__main__.main()
"""


def test_ctrl_c_during_the_imports_ends_the_command_in_peace() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT],
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "")


def test_documents_are_listed_tagged_and_deleted_by_filter(
    client: httpx.Client, collection: str, raglan: Run, docs: Path
) -> None:
    def documents(*words: str) -> subprocess.CompletedProcess[str]:
        return raglan("documents", *words, "-c", collection)

    assert raglan("ingest", "docs", "-c", collection, "--metadata", "team=x").returncode == 0
    dry = documents("delete", "--filter", "team=x", "--dry-run")
    assert "4 documents match; nothing was changed." in dry.stdout
    refused = documents("delete", "--filter", "team=x")
    assert refused.returncode == 1
    assert "matches every document" in refused.stderr
    tagged = documents("tag", "docs/a.md", "-m", "year:=2026", "-m", "team:=null", "--json")
    assert report(tagged)["job"]["kind"] == "tag"
    shown = documents("show", "docs/a.md")
    assert 'metadata  {"year": 2026}' in shown.stdout
    assert "every caller" in shown.stdout
    listed = documents("list", "--filter", "year:=2026")
    assert listed.stdout.count(".md") == 1
    assert "docs/a.md" in listed.stdout
    done = documents("delete", "--filter", '{"exists": {"field": "year", "value": false}}')
    assert done.stdout.strip() == "Deleted 3 documents."
    assert ids(client, collection) == {"docs/a.md"}
    for words in (["tag", "-m", "a=b"], ["delete"], ["delete", "x", "--filter", "a=b"]):
        assert documents(*words).returncode == 2
    gone = documents("delete", "docs/a.md", "none")
    assert "Deleted 1 document (1 chunk)." in gone.stdout
    assert gone.returncode == 1
