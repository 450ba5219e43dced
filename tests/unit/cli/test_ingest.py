import json

import pytest
from raglan_cli import files


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


def test_a_document_that_fails_is_named_with_its_reason_and_fails_the_command(
    raglan, gateway, docs
):
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
    monkeypatch.setattr(files.batches, "__kwdefaults__", {"max_bytes": 1000, "max_files": 2})
    run = raglan("ingest", docs, url=gateway.url)
    assert run.status == 0, run.err
    assert gateway.uploads == [["docs/a.md", "docs/b.md"], ["docs/c.md"]]


def test_an_overloaded_gateway_is_asked_again(raglan, gateway, docs, monkeypatch):
    waited = []
    monkeypatch.setattr("raglan_cli.client.time.sleep", waited.append)
    gateway.busy = 2
    run = raglan("ingest", docs, url=gateway.url)
    assert run.status == 0, run.err
    assert waited[:2] == [1.0, 2.0]


def test_no_wait_returns_with_the_jobs(raglan, gateway, docs):
    run = raglan("ingest", docs, "--no-wait", "--json", url=gateway.url)
    assert json.loads(run.out)["jobs"] == [{"id": "job-0", "status": "queued"}]
    assert gateway.jobs["job-0"]["status"] == "queued"


def test_skipped_files_are_listed(raglan, gateway, docs):
    (docs / "x.bin").touch()
    assert "Skipped 1 of unknown type: docs/x.bin" in raglan("ingest", docs, url=gateway.url).out


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
    assert f"POST {gateway.url}/v1/jobs/job-0/cancel" in run.err
