from raglan_cli.status import confinement_of, crash_of, merge

ENTRY = {
    "service": "embedder",
    "replica": 1,
    "address": "127.0.0.1:25001",
    "pid": 7,
    "state": "ready",
    "since": 0.0,
    "ready_after_s": 1.0,
    "restarts": 2,
    "reason": "It was killed (SIGKILL).",
    "wait_s": 2.0,
    "log": "/data/logs/embedder-1.log",
}


def test_what_a_process_crashed_of_is_told_with_where_it_stands():
    (row,) = merge([], {"services": [ENTRY]})
    assert crash_of(row) == (
        "The embedder at 127.0.0.1:25001 crashed 2 times, last: It was killed (SIGKILL). "
        "It is ready. Its log: /data/logs/embedder-1.log"
    )


def test_the_crash_is_told_beside_what_the_gateway_sees():
    seen = {"service": "embedder", "address": "127.0.0.1:25001", "state": "serving"}
    (row,) = merge([seen], {"services": [ENTRY]})
    assert "SIGKILL" in crash_of(row)
    assert row["state"] == "serving"


def test_gateways_that_share_an_address_are_told_apart_by_pid():
    first = ENTRY | {"service": "gateway", "address": "127.0.0.1:8080", "log": "/1"}
    second = first | {"pid": 8, "log": "/2"}
    seen = {"service": "gateway", "address": "127.0.0.1:8080", "state": "serving", "pid": 8}
    rows = merge([seen], {"services": [first, second]})
    assert [(row["pid"], row["state"], row["log"]) for row in rows] == [
        (8, "serving", "/2"),
        (7, "ready", "/1"),
    ]


def test_a_process_that_never_crashed_has_nothing_to_tell():
    (row,) = merge([], {"services": [ENTRY | {"restarts": 0, "reason": None}]})
    assert crash_of(row) == ""


def test_what_confines_parsers_is_a_sentence_with_what_is_missing():
    assert confinement_of(["landlock", "seccomp", "network_namespace"]) == (
        "Parsers are confined by landlock, seccomp, network namespace."
    )
    assert confinement_of(["seccomp", "audit_hook"]) == (
        "Parsers are confined by seccomp, audit hook; they can read the ingester's files: "
        "no Landlock here."
    )


def test_what_a_process_cannot_serve_is_said_below_the_table(raglan, gateway):
    problem = "Collection 'notes' is damaged and set aside: cut short. Its folder is /data/notes."
    gateway.services = [{"service": "retriever", "state": "serving", "problems": [problem]}]
    assert problem in " ".join(raglan("status", url=gateway.url).out.split())
