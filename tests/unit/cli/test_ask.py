import json

import pytest

FINAL = {
    "id": "q1",
    "answer": "It is set by device. [1]",
    "citations": [
        {
            "marker": 1,
            "document_id": "docs/gpu.md",
            "chunk_id": "c",
            "title": "Pinning",
            "quote": "It is set by\ndevice.",
            "start": 0,
            "end": 20,
        }
    ],
    "passages": [],
    "degraded": [{"stage": "rerank", "reason": "it was late", "fallback": "the fused order"}],
    "timings_ms": {"total": 31.4, "embed": 3.2, "embed_queue": 0.1},
    "trace_id": "abc123",
}
PASSAGE = {
    "chunk_id": "c",
    "document_id": "docs/gpu.md",
    "title": "",
    "text": "The reranker\nis pinned \x1b[31mhere.",
    "rank": 1,
    "scores": {"dense": 0.5, "lexical": None, "fused": 0.7, "rerank": 1.25},
    "metadata": {},
}


def event(name, **data):
    return name, json.dumps(data)


ANSWER = [
    event("start", id="q1", trace_id="abc123"),
    event("sources", passages=[]),
    event("delta", text="It is set "),
    event("delta", text="by device. [1]"),
    event("citation", **FINAL["citations"][0]),
    event("final", **FINAL),
    event("done"),
]


def test_an_answer_is_followed_by_its_sources_notes_timings_and_trace(raglan, gateway):
    gateway.events = ANSWER
    run = raglan("ask", "How is it set?", "-c", "handbook", url=gateway.url)
    assert run.status == 0, run.err
    assert run.out.splitlines() == [
        "It is set by device. [1]",
        "",
        "[1] Pinning  docs/gpu.md",
        "    “It is set by device.”",
        "",
        "rerank fell back to the fused order: it was late",
        "embed 3 ms  total 31 ms  trace abc123",
    ]


def test_a_citation_shows_its_page_and_the_headings_above_it(raglan, gateway):
    cited = FINAL["citations"][0] | {"page": 7, "heading_path": ["Pinning", "GPUs", "Two"]}
    gateway.events = [*ANSWER[:-2], event("final", **(FINAL | {"citations": [cited]}))]
    run = raglan("ask", "How is it set?", url=gateway.url)
    assert "[1] Pinning  docs/gpu.md  (page 7, GPUs > Two)" in run.out.splitlines()


def test_the_question_goes_out_with_what_was_chosen_and_nothing_else(raglan, gateway):
    gateway.events = ANSWER
    raglan("ask", "Why?", "--top-k", 3, "--mode", "dense", "--no-rerank", url=gateway.url)
    raglan("ask", "Why?", url=gateway.url)
    assert gateway.bodies == [
        {
            "query": "Why?",
            "collections": ["default"],
            "top_k": 3,
            "mode": "dense",
            "rerank": False,
            "stream": True,
        },
        {"query": "Why?", "collections": ["default"], "stream": True},
    ]


def test_json_is_the_final_object_alone(raglan, gateway):
    gateway.events = ANSWER
    assert json.loads(raglan("ask", "Why?", "--json", url=gateway.url).out) == FINAL


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_an_error_in_the_stream_fails_the_command_with_its_message(raglan, gateway, flags):
    gateway.events = [
        event("delta", text="It is"),
        event("error", code="UNAVAILABLE", message="The generator left.", retryable=True),
    ]
    run = raglan("ask", "Why?", *flags, url=gateway.url)
    assert run.status == 1
    assert run.err.strip() == "The generator left."
    if flags:
        assert json.loads(run.out)["error"]["code"] == "UNAVAILABLE"


def test_a_stream_without_an_end_is_a_failure(raglan, gateway):
    gateway.events = [event("delta", text="It is")]
    run = raglan("ask", "Why?", url=gateway.url)
    assert run.status == 1
    assert "ended before the answer was complete" in run.err


def test_an_error_before_the_stream_is_shown_as_the_gateway_words_it(raglan, gateway):
    run = raglan("ask", "Why?", "-c", "missing", "--json", url=gateway.url)
    assert run.status == 1
    assert run.err.strip() == "There is no collection 'missing'."
    assert json.loads(run.out)["error"]["message"] == "There is no collection 'missing'."


def test_what_documents_hold_cannot_steer_the_terminal(raglan, gateway):
    gateway.events = [
        event("delta", text="red \x1b[31malert\x07"),
        event("final", **(FINAL | {"citations": [FINAL["citations"][0] | {"title": "\x1b]0;x"}]})),
    ]
    assert "\x1b" not in raglan("ask", "Why?", url=gateway.url).out


def test_what_a_server_says_in_an_error_cannot_steer_the_terminal(raglan, gateway):
    gateway.events = [event("error", code="X", message="It \x1b]0;x\x07 left \x9b2J.")]
    for flags in ((), ("--json",)):
        run = raglan("ask", "Why?", *flags, url=gateway.url)
        assert not {"\x1b", "\x07", "\x9b"} & set(run.out + run.err)


def test_search_shows_rank_the_deciding_score_title_and_snippet(raglan, gateway):
    gateway.search = lambda body: [PASSAGE]
    run = raglan("search", "pin", url=gateway.url)
    assert run.status == 0, run.err
    assert run.out.splitlines()[:2] == [
        " 1  1.250  docs/gpu.md",
        "    The reranker is pinned [31mhere.",
    ]


def test_search_shows_where_a_passage_stands(raglan, gateway):
    place = {"title": "Pinning", "page": 7, "heading_path": ["Pinning", "GPUs", "Two"]}
    gateway.search = lambda body: [PASSAGE | place]
    run = raglan("search", "pin", url=gateway.url)
    assert run.out.splitlines()[0] == " 1  1.250  Pinning  docs/gpu.md  (page 7, GPUs > Two)"


def test_search_in_json_is_the_reply_itself(raglan, gateway):
    gateway.search = lambda body: [PASSAGE]
    assert json.loads(raglan("search", "pin", "--json", url=gateway.url).out)["passages"] == [
        PASSAGE
    ]


def test_an_empty_collection_is_told_with_those_that_are_not(raglan, gateway):
    gateway.collections = {"default": {}, "handbook": {"a": b"x"}}
    gateway.events = ANSWER
    sentence = (
        "The collection default holds no documents; put some in with: raglan ingest PATH -c "
        "default. Collections with documents: handbook; choose one with --collection."
    )
    for words in (("search", "pin"), ("ask", "Why?")):
        assert raglan(*words, url=gateway.url).err.strip() == sentence
        assert raglan(*words, "--json", url=gateway.url).err == ""
    assert raglan("list", url=gateway.url).out.strip() == sentence


def test_a_missing_collection_is_told_with_those_that_exist(raglan, gateway):
    gateway.collections = {"handbook": {"a": b"x"}}
    for words in (("search", "pin"), ("ask", "Why?"), ("list",)):
        run = raglan(*words, "-c", "missing", url=gateway.url)
        assert run.status == 1
        assert run.err.strip().endswith(
            "Collections with documents: handbook; choose one with --collection."
        )


def test_a_search_that_finds_nothing_says_so(raglan, gateway):
    assert "Nothing found." in raglan("search", "pin", url=gateway.url).out


@pytest.mark.parametrize(
    "words",
    [
        ("search", "x", "--mode", "fuzzy"),
        ("search",),
        ("search", "x", "--top-k", "many"),
        ("search", "x", "--top-k", "0"),
        ("ask", " "),
        ("ask", "x", "-c", "My Documents"),
        ("eval", ".", "-c", ".."),
        ("frobnicate",),
        ("ask", "x", "--url", "127.0.0.1:8080"),
    ],
)
def test_wrong_words_are_a_usage_error(raglan, words):
    run = raglan(*words)
    assert run.status == 2
    assert run.err


def test_something_else_than_a_gateway_is_told_apart(raglan, gateway):
    gateway.events = []
    run = raglan("status", url=gateway.url)
    assert run.status == 1
    assert "answered with HTTP status 404" in run.err


def test_the_version_is_shown(raglan):
    assert raglan("--version").out.startswith("raglan 0.")


def test_every_command_explains_itself_with_an_example(raglan):
    for command in ("up", "down", "ingest", "ask", "search", "eval", "status"):
        run = raglan(command, "--help")
        assert run.status == 0
        assert f"raglan {command}" in run.out.split("Example", 1)[1]
