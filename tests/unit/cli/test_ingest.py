import json

import pytest
from raglan_cli import upload
from raglan_cli.failure import Failure


@pytest.fixture
def docs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "docs"
    folder.mkdir()
    for name in ("a.md", "b.md", "c.md"):
        (folder / name).write_text(f"text of {name}")
    return folder


def test_files_arrive_whole_under_their_names_in_a_new_collection(raglan, gateway, docs):
    run = raglan("ingest", docs, "-c", "handbook", url=gateway.url)
    assert run.status == 0, run.err
    assert gateway.collections["handbook"] == {
        f"docs/{name}": f"text of {name}".encode() for name in ("a.md", "b.md", "c.md")
    }
    assert "3 documents sent to handbook: 3 chunks indexed, 0 unchanged, 0 failed" in run.out


def test_a_collection_that_exists_is_used(raglan, gateway, docs):
    gateway.collections["default"] = {"docs/a.md": b"text of a.md"}
    run = raglan("ingest", docs, "--json", url=gateway.url)
    assert json.loads(run.out)["unchanged"] == 1


def test_a_failed_document_is_named_and_fails_the_command(raglan, gateway, docs):
    """A document that fails is named with its reason and fails the command."""
    gateway.poisoned = {"docs/b.md": "The PDF is encrypted."}
    run = raglan("ingest", docs, url=gateway.url)
    assert run.status == 1
    assert "docs/b.md: The PDF is encrypted." in run.err
    assert set(gateway.collections["default"]) == {"docs/a.md", "docs/c.md"}


def test_a_file_the_gateway_refuses_does_not_keep_the_others_out(raglan, gateway, docs):
    (docs / "b.md").write_text("much too long " * 100)
    gateway.max_file_bytes = 100
    run = raglan("ingest", docs, "--json", url=gateway.url)
    assert run.status == 1
    report = json.loads(run.out)
    assert report["failed"] == [{"document": "docs/b.md", "reason": "A file is over 100 bytes."}]
    assert set(gateway.collections["default"]) == {"docs/a.md", "docs/c.md"}


def test_requests_stay_below_their_limits(raglan, gateway, docs, monkeypatch):
    monkeypatch.setattr(upload.batches, "__kwdefaults__", {"max_bytes": 1000, "max_files": 2})
    run = raglan("ingest", docs, url=gateway.url)
    assert run.status == 0, run.err
    assert gateway.uploads == [["docs/a.md", "docs/b.md"], ["docs/c.md"]]


def test_an_overloaded_gateway_is_asked_again(raglan, gateway, docs, monkeypatch):
    waited = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waited.append)
    gateway.busy = 2
    run = raglan("ingest", docs, url=gateway.url)
    assert run.status == 0, run.err
    assert 0.5 <= waited[0] <= 1.0 <= waited[1] <= 1.5


def test_no_wait_returns_with_the_jobs(raglan, gateway, docs):
    run = raglan("ingest", docs, "--no-wait", "--json", url=gateway.url)
    assert json.loads(run.out)["jobs"] == [{"id": "job-0", "status": "queued"}]
    assert gateway.jobs["job-0"]["status"] == "queued"


def test_skipped_files_are_listed(raglan, gateway, docs):
    (docs / "x.bin").touch()
    run = raglan("ingest", docs, url=gateway.url)
    assert "Skipped 1 (unknown type): docs/x.bin" in run.out


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda docs: docs / "nowhere", "There is no file or folder"),
        (lambda docs: (docs / "empty").mkdir() or docs / "empty", "There are no files in"),
    ],
)
def test_paths_that_give_nothing_are_a_usage_error(raglan, gateway, docs, make, sentence):
    run = raglan("ingest", make(docs), url=gateway.url)
    assert run.status == 2
    assert sentence in run.err


def test_without_a_gateway_the_way_out_is_told(raglan, docs):
    run = raglan("ingest", docs, "--url", "http://127.0.0.1:1")
    assert run.status == 1
    assert run.err.strip() == (
        "No gateway answers at http://127.0.0.1:1; start one with: raglan up"
    )


def test_an_interruption_says_that_the_work_goes_on_and_how_to_end_it(
    raglan, gateway, docs, monkeypatch
):
    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("raglan_cli.jobs.time.sleep", interrupted)
    run = raglan("ingest", docs, url=gateway.url)
    assert run.status == 130
    assert run.err.splitlines() == [
        "Interrupted. Accepted before: 3 of 3 files. The mesh continues with them:",
        "  job job-0 (3 files)",
        f"To cancel one: curl -X POST {gateway.url}/v1/jobs/ID/cancel",
    ]


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (KeyboardInterrupt(), 130, "Interrupted."),
        (Failure("The gateway broke off."), 1, "The gateway broke off."),
    ],
)
def test_an_upload_that_ends_early_says_what_was_accepted(
    raglan, gateway, docs, monkeypatch, error, status, sentence
):
    monkeypatch.setattr(upload.batches, "__kwdefaults__", {"max_bytes": 1000, "max_files": 2})
    sound = upload.LazyFile.read

    def read(self, size=-1):
        if self._file.name == "docs/c.md":
            raise error
        return sound(self, size)

    monkeypatch.setattr(upload.LazyFile, "read", read)
    run = raglan("ingest", docs, "--json", url=gateway.url)
    assert run.status == status
    assert f"{sentence} Accepted before: 2 of 3 files." in run.err
    assert json.loads(run.out)["accepted"] == [{"id": "job-0", "files": 2}]


def test_a_file_that_grows_during_the_upload_fails_alone(raglan, gateway, docs, monkeypatch):
    sound = upload.LazyFile.read

    def read(self, size=-1):
        if self._file.name == "docs/b.md":
            with self._file.path.open("a") as file:
                file.write("more and ")
        return sound(self, size)

    monkeypatch.setattr(upload.LazyFile, "read", read)
    run = raglan("ingest", docs, "--json", url=gateway.url)
    assert run.status == 1
    report = json.loads(run.out)
    assert report["failed"] == [
        {"document": "docs/b.md", "reason": "It changed while it was sent; ingest it again."}
    ]
    assert set(gateway.collections["default"]) == {"docs/a.md", "docs/c.md"}


def test_a_file_that_changed_once_is_sent_as_it_is_now(raglan, gateway, docs, monkeypatch):
    sound = upload.LazyFile.read
    changes = ["longer text"]

    def read(self, size=-1):
        if self._file.name == "docs/b.md" and changes:
            self._file.path.write_text(changes.pop() * 3)
        return sound(self, size)

    monkeypatch.setattr(upload.LazyFile, "read", read)
    run = raglan("ingest", docs, url=gateway.url)
    assert run.status == 0, run.err
    assert gateway.collections["default"]["docs/b.md"] == b"longer text" * 3


def test_files_that_are_removed_during_the_upload_fail_alone(raglan, gateway, docs, monkeypatch):
    sound = upload.LazyFile.read

    def read(self, size=-1):
        (docs / "b.md").unlink(missing_ok=True)
        return sound(self, size)

    monkeypatch.setattr(upload.LazyFile, "read", read)
    run = raglan("ingest", docs, url=gateway.url)
    assert run.status == 1
    assert run.err.strip() == "docs/b.md: It cannot be read: No such file or directory."
    assert set(gateway.collections["default"]) == {"docs/a.md", "docs/c.md"}


def test_metadata_goes_with_every_file(raglan, gateway, docs):
    flags = ["--metadata", "team=search", "--metadata", "version=1.10", "--metadata", "year:=2026"]
    raglan("ingest", docs, *flags, url=gateway.url)
    assert json.loads(gateway.metadata) == {"team": "search", "version": "1.10", "year": 2026}


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("team", "write it as KEY=VALUE"),
        ("=x", "write it as KEY=VALUE"),
        ("year:=x", "x is no JSON"),
    ],
)
def test_metadata_that_is_none_is_a_usage_error(raglan, gateway, docs, option, sentence):
    run = raglan("ingest", docs, "--metadata", option, url=gateway.url)
    assert run.status == 2
    assert sentence in run.err


def test_prune_deletes_documents_whose_files_are_gone_and_no_others(raglan, gateway, docs):
    gateway.collections["default"] = dict.fromkeys(
        ("docs/gone.md", "docs/kept.bin", "docs/.hid.md", "docs2/a.md"), b"x"
    )
    (docs / "kept.bin").touch()
    (docs / ".hid.md").touch()
    run = raglan("ingest", docs, "--prune", url=gateway.url)
    assert "1 deleted" in run.out
    assert "Deleted docs/gone.md, whose file is gone." in run.out
    assert set(gateway.collections["default"]) == {
        *("docs/a.md", "docs/b.md", "docs/c.md", "docs/kept.bin", "docs/.hid.md", "docs2/a.md")
    }


def test_prune_spares_files_whose_names_a_form_escapes(raglan, gateway, docs):
    (docs / 'say "hi".md').write_text("x")
    (docs / "back\\slash.md").write_text("x")
    run = raglan("ingest", docs, "--prune", "--json", url=gateway.url)
    assert json.loads(run.out)["removed"] == []
    assert "docs/say %22hi%22.md" in gateway.collections["default"]
    again = raglan("ingest", docs, "--dry-run", "--json", url=gateway.url)
    assert "docs/say %22hi%22.md" in json.loads(again.out)["unchanged"]


def test_dry_run_shows_what_would_change_and_changes_nothing(raglan, gateway, docs):
    before = {"docs/a.md": b"text of a.md", "docs/b.md": b"old", "docs/gone.md": b"x"}
    gateway.collections["default"] = dict(before)
    run = raglan("ingest", docs, "--prune", "--dry-run", url=gateway.url)
    assert run.status == 0
    assert run.out.splitlines() == [
        "docs/c.md  (new)",
        "docs/b.md  (replaces what is stored)",
        "docs/a.md  (unchanged)",
        "docs/gone.md  (would be deleted: its file is gone)",
        "Nothing was changed in default. It would be: 1 new, 1 changed, 1 unchanged, 1 removed.",
    ]
    assert gateway.collections["default"] == before
    assert gateway.uploads == []
    tagged = raglan("ingest", docs, "--dry-run", "--metadata", "team=a", url=gateway.url)
    assert "docs/a.md  (replaces what is stored)" in tagged.out.splitlines()
    raglan("ingest", docs, "-c", "other", "--dry-run", url=gateway.url)
    assert "other" not in gateway.collections


def test_list_and_delete(raglan, gateway):
    gateway.collections["default"] = {"docs/a.md": b"x", "..": b"y"}
    assert [line.split()[0] for line in raglan("list", url=gateway.url).out.splitlines()[1:]] == [
        "..",
        "docs/a.md",
    ]
    run = raglan("delete", "docs/a.md", "..", "nothing", url=gateway.url)
    assert run.status == 1
    assert run.out.strip() == "Deleted 2 documents (2 chunks)."
    assert run.err.strip() == "There is no document nothing in default."
    assert gateway.collections == {"default": {}}


def test_list_of_an_empty_collection_says_so(raglan, gateway):
    gateway.collections["default"] = {}
    run = raglan("list", url=gateway.url)
    assert run.status == 0
    assert "The collection default holds no documents" in run.out
    as_json = raglan("list", "--json", url=gateway.url)
    assert json.loads(as_json.out) == {"collection": "default", "documents": []}


def test_list_of_a_collection_that_is_not_there_is_a_failure(raglan, gateway):
    run = raglan("list", "-c", "nowhere", url=gateway.url)
    assert run.status == 1
    assert "There is no such collection." in run.err
