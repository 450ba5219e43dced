import json

import pytest
from raglan_cli import beir
from raglan_cli.failure import UsageFailure

CORPUS = [
    {"_id": "d1", "title": "Normans", "text": "The Normans came from Normandy."},
    {"_id": "d2", "title": "Only a title", "text": ""},
    {"_id": "d3", "title": "", "text": " "},
]
QUERIES = [
    {"_id": "q0", "text": "never judged"},
    {"_id": "q1", "text": "Where from?", "metadata": {"answers": ["Normandy"]}},
    {"_id": "q2", "text": "Which title?", "metadata": {"answers": ["none"]}},
]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t1\nq2\td1\t0\n"


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "My Set"
    (made / "qrels").mkdir(parents=True)
    (made / "corpus.jsonl").write_text("\n".join(map(json.dumps, CORPUS)))
    (made / "queries.jsonl").write_text("\n".join(map(json.dumps, QUERIES)))
    (made / "qrels" / "test.tsv").write_text(QRELS)
    return made


def passages(*document_ids):
    return [{"document_id": d} for d in document_ids]


def test_only_judged_queries_and_filled_documents_take_part(folder):
    dataset = beir.load(folder)
    assert [question.id for question in dataset.questions] == ["q1", "q2"]
    assert (dataset.documents, dataset.empty) == (2, 1)
    ((count, body),) = dataset.requests()
    assert count == 2
    assert [(d["id"], d["text"]) for d in json.loads(body)["documents"]] == [
        ("d1", "The Normans came from Normandy."),
        ("d2", "Only a title"),
    ]


def test_the_collection_is_named_after_the_folder_and_the_corpus(folder):
    before = beir.load(folder).collection
    assert before.startswith("eval-my-set-")
    with (folder / "corpus.jsonl").open("a") as corpus:
        corpus.write('\n{"_id": "d4", "text": "x"}')
    assert beir.load(folder).collection != before


def test_requests_are_bounded_by_documents_and_bytes(folder, monkeypatch):
    rows = [{"_id": f"d{i}", "text": "x" * 100} for i in range(20)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr(beir, "MAX_REQUEST_DOCUMENTS", 6)
    assert [count for count, _ in beir.load(folder).requests()] == [6, 6, 6, 2]
    monkeypatch.setattr(beir, "MAX_REQUEST_BYTES", 400)
    bodies = [body for _, body in beir.load(folder).requests()]
    assert max(map(len, bodies)) <= 400 + len('{"documents":[]}')
    assert sum(len(json.loads(body)["documents"]) for body in bodies) == 20


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("queries.jsonl", "{", "line 1: this is not JSON"),
        ("corpus.jsonl", '{"_id": 1, "text": "x"}', "line 1: an object with the strings _id, text"),
        ("qrels/test.tsv", "q1 d1 1", "line 1: query-id, corpus-id and a whole score"),
        ("qrels/test.tsv", "q9\td1\t1", "no query of queries.jsonl is judged"),
    ],
)
def test_a_broken_file_is_named_with_its_line(folder, name, content, sentence):
    (folder / name).write_text(content)
    with pytest.raises(UsageFailure, match=sentence):
        beir.load(folder)


def test_a_folder_that_is_no_beir_folder_is_a_usage_error(raglan, tmp_path):
    run = raglan("eval", tmp_path, "--url", "http://127.0.0.1:1")
    assert run.status == 2
    assert "corpus.jsonl is missing" in run.err


def test_figures_come_from_the_rankings_the_gateway_gives(raglan, gateway, folder):
    gateway.search = lambda body: passages("d3", "d1", "d1", "d2")
    run = raglan("eval", folder, "--json", url=gateway.url)
    assert run.status == 0, run.err
    report = json.loads(run.out)
    assert report["queries"] == 2
    assert report["ingest"]["reused"] is False
    figures = report["search"]
    assert figures["recall_at_3"] == 1.0
    assert figures["mrr_at_10"] == pytest.approx((1 / 2 + 1 / 3) / 2, abs=1e-4)
    assert figures["ndcg_at_10"] == pytest.approx((0.6309 + 0.5) / 2, abs=1e-4)
    assert figures["latency_p50_ms"] > 0


def test_latency_is_measured_as_users_ask_and_quality_at_depth(raglan, gateway, folder):
    raglan("eval", folder, "--no-rerank", "--mode", "dense", url=gateway.url)
    own = [body for body in gateway.bodies if not body["query"].endswith(" ?")]
    assert [body.get("top_k") for body in own] == [None, None, 100, 100]
    assert {(body["rerank"], body["mode"]) for body in own} == {(False, "dense")}


def test_a_complete_collection_is_used_again(raglan, gateway, folder):
    raglan("eval", folder, url=gateway.url)
    run = raglan("eval", folder, "--json", url=gateway.url)
    assert json.loads(run.out)["ingest"]["reused"] is True
    assert len(gateway.uploads) == 1


def test_an_incomplete_collection_is_completed(raglan, gateway, folder):
    raglan("eval", folder, url=gateway.url)
    del gateway.collections[beir.load(folder).collection]["d1"]
    raglan("eval", folder, url=gateway.url)
    assert len(gateway.uploads) == 2


def test_no_keep_deletes_the_collection(raglan, gateway, folder):
    raglan("eval", folder, "--no-keep", url=gateway.url)
    assert gateway.collections == {}
    raglan("eval", folder, url=gateway.url)
    raglan("eval", folder, "--no-keep", url=gateway.url)
    assert gateway.collections == {}


def test_no_keep_deletes_the_collection_of_an_evaluation_that_fails(raglan, gateway, folder):
    def broken(body):
        raise ValueError("The index is damaged.")

    gateway.search = broken
    run = raglan("eval", folder, "--no-keep", url=gateway.url)
    assert (run.status, run.err.strip()) == (1, "The index is damaged.")
    assert gateway.collections == {}


@pytest.mark.parametrize("flag", ["--keep", "--no-keep"])
@pytest.mark.parametrize("held", [{"docs/a.md": b"text"}, {"d1": b"x", "d2": b"y"}])
def test_a_collection_with_other_documents_is_not_touched(raglan, gateway, folder, flag, held):
    gateway.collections["handbook"] = dict(held)
    run = raglan("eval", folder, "-c", "handbook", flag, url=gateway.url)
    assert run.status == 2
    assert "handbook holds documents that are not of this corpus" in run.err
    assert gateway.collections == {"handbook": held}


def test_a_given_collection_is_made_and_only_then_deleted(raglan, gateway, folder):
    raglan("eval", folder, "-c", "mine", "--no-keep", url=gateway.url)
    assert gateway.collections == {}
    gateway.collections["mine"] = {}
    run = raglan("eval", folder, "-c", "mine", "--no-keep", url=gateway.url)
    assert run.status == 0
    assert set(gateway.collections["mine"]) == {"d1", "d2"}
    assert "mine stays: it was there before this evaluation." in run.err


def test_one_long_document_does_not_take_the_places_of_others(raglan, gateway, folder):
    """Searches go on without the documents found so far."""

    def search(body):
        found = set(body.get("filter", {"not": {"in": {"values": []}}})["not"]["in"]["values"])
        order = [d for d in ["d2"] * 150 + ["d3"] * 150 + ["d1"] if d not in found]
        return passages(*order[: body.get("top_k", 10)])

    gateway.search = search
    figures = json.loads(raglan("eval", folder, "--json", url=gateway.url).out)["search"]
    assert figures["recall_at_3"] == 1.0
    assert figures["truncated_queries"] == 0


def test_a_depth_that_does_not_reach_all_documents_is_told(raglan, gateway, folder):
    gateway.search = lambda body: passages(*["d1"] * body.get("top_k", 10))
    run = raglan("eval", folder, url=gateway.url)
    assert "For 2 of 2 queries the passages that were looked at belong to fewer than 50" in run.err
    assert "Recall@50 is too low" in run.err


def test_rankings_are_written_as_a_trec_run(raglan, gateway, folder, tmp_path):
    gateway.search = lambda body: passages("d3", "d1", "d1", "d2")
    raglan("eval", folder, "--run", tmp_path / "a.run", url=gateway.url)
    assert (tmp_path / "a.run").read_text().splitlines()[:4] == [
        "q1 Q0 d3 1 3 raglan",
        "q1 Q0 d1 2 2 raglan",
        "q1 Q0 d2 3 1 raglan",
        "q2 Q0 d3 1 3 raglan",
    ]


def test_a_run_that_cannot_be_written_ends_the_command_before_it_begins(raglan, gateway, folder):
    run = raglan("eval", folder, "--run", folder / "no" / "a.run", url=gateway.url)
    assert run.status == 2
    (folder / "corpus.jsonl").write_text('{"_id": "a b", "text": "x"}')
    spaced = raglan("eval", folder, "--run", folder / "a.run", url=gateway.url)
    assert "the id 'a b' holds white space" in spaced.err
    assert gateway.collections == {}


def test_answers_are_checked_for_what_is_known(raglan, gateway, folder):
    gateway.answer = lambda body: "They came from NORMANDY. [1] One. [1] Two. [1] Three. [1]"
    run = raglan("eval", folder, "--answers", "--json", url=gateway.url)
    figures = json.loads(run.out)["answers"]
    assert figures["contains_answer"] == 0.5
    assert figures["over_three_sentences"] == 1.0


def test_answers_without_known_ones_are_a_usage_error(raglan, gateway, folder):
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "Where from?"}')
    run = raglan("eval", folder, "--answers", url=gateway.url)
    assert run.status == 2
    assert "carry no metadata.answers" in run.err


def test_the_figures_are_shown_as_a_table(raglan, gateway, folder):
    out = raglan("eval", folder, url=gateway.url).out
    assert "nDCG@10" in out
    assert "Recall@50" in out
    assert "latency p95 ms" in out


def test_report_has_the_measurements_behind_its_figures(raglan, gateway, folder):
    gateway.search = lambda body: passages("d3", "d1", "d1", "d2")
    gateway.answer = lambda body: "Normandy."
    report = json.loads(raglan("eval", folder, "--answers", "--json", url=gateway.url).out)
    assert report["corpus"] == beir.load(folder).digest
    samples = report["samples"]
    assert samples["mrr_at_10"] == pytest.approx([1 / 2, 1 / 3])
    assert [len(samples[name]) for name in ("search_ms", "query_ms")] == [2, 2]
    assert samples["contains_answer"] == [1, 0]
