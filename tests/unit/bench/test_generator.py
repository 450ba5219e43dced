"""What the benchmarks of the generator make of what they have seen."""

from __future__ import annotations

import json
from pathlib import Path

import generator
import generator_overload as overload
import gpu_generator as gpu
import pytest
from callers import LATE, OK, REFUSED
from generator_servers import Asked, Engine
from load import Answers
from raglan.v1 import generator_pb2


def answers(**lists: list[float]) -> Answers:
    """Two answers of 5 tokens, begun after 0.1 and 0.3 s."""
    known = {
        "due": [0.0, 0.0],
        "sent": [0.0, 0.0],
        "began": [0.1, 0.3],
        "done": [0.5, 1.1],
        "status": [OK, OK],
        "read": [7, 8],
        "written": [5, 5],
        "seconds": 2.0,
        "cpu_seconds": 0.1,
    }
    return Answers(**(known | lists))  # type: ignore[arg-type]


def test_a_round_gives_speed_first_token_and_processor_time_of_a_token() -> None:
    seen = generator.Measured()
    seen.add(answers(), cpu_s=0.02)
    assert seen == generator.Measured([5.0], [100.0], [2.0], [10.0])


def test_an_answer_that_failed_or_is_short_leaves_no_figure() -> None:
    with pytest.raises(RuntimeError, match=REFUSED):
        generator.check("ours", answers(status=[OK, REFUSED]))
    with pytest.raises(RuntimeError, match="wrote"):
        generator.check("ours", answers(written=[generator.TOKENS, 5]))


def test_an_answer_that_began_too_late_is_no_goodput_though_it_ended() -> None:
    assert answers().goodput(0.0, 2.0, deadline_s=0.2) == 1 / 2.0


def test_the_shares_of_an_overload_are_of_all_calls() -> None:
    told = overload.ended([answers(), answers(status=[REFUSED, LATE])])
    assert told.startswith("50% answered, 25% refused, 25% late;")


def test_the_peak_may_lie_anywhere_in_the_sweep() -> None:
    sweep = overload._Sweep(capacity=[10.0])
    for times, rate in ((0.7, 7.0), (1.0, 9.0), (2.0, 8.5)):
        sweep.goodput[times].append(rate)
    sweep.answers[2.0].append(answers(status=[OK, REFUSED]))
    first, *rest = overload.rows("ours", sweep)
    assert (first.ours, first.peer, first.met) == (8.5, 9.0, True)
    assert [row.what for row in rest if "refusals" in row.what]


def test_the_time_of_a_token_leaves_out_the_first_one() -> None:
    assert gpu.per_token_ms(answers()) == pytest.approx([100.0, 200.0])


def test_both_servers_are_asked_the_same() -> None:
    asked = Asked("Who was it?", ("It was Ada.", "It was not Bob."), 64, first_ms=500)
    mine = generator_pb2.GenerateRequest.FromString(asked.for_ours)
    theirs = json.loads(asked.for_peer)
    assert (mine.max_tokens, mine.first_token_ms, theirs["max_tokens"]) == (64, 500, 64)
    said = theirs["messages"][1]["content"]
    assert [said.index(each.text) for each in mine.passages] == sorted(
        said.index(text) for text in asked.passages
    )
    assert said.endswith(mine.question)


def test_without_the_layout_the_question_comes_before_the_same_passages() -> None:
    asked = Asked("Who was it?", ("It was Ada.",), 64)
    before = json.loads(asked.for_peer)["messages"][1]["content"]
    behind = json.loads(gpu.behind(asked))["messages"][1]["content"]
    assert behind.startswith("Question: Who was it?")
    assert sorted(behind.split("\n\n")) == sorted(before.split("\n\n"))


def test_what_our_service_is_told_the_peer_is_told_too() -> None:
    engine = Engine(
        Path("/model"), max_num_seqs=7, enable_prefix_caching=False, speculation={"method": "ngram"}
    )
    told = engine.arguments()
    for name, value in engine.variables().items():
        option = name.removeprefix("RAGLAN_GENERATOR_").lower().replace("_", "-")
        option = option.replace("speculation", "speculative-config")
        if value in ("True", "False"):
            assert f"--{'' if value == 'True' else 'no-'}{option}" in told
        else:
            assert told[told.index(f"--{option}") + 1] == value
