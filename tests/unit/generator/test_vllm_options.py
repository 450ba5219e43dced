"""Settings of the vllm engine, without vLLM."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from raglan.scheduling import Lane
from raglan.settings import SettingsError, load
from raglan_generator.engines.vllm_options import (
    DraftModel,
    Ngram,
    Suffix,
    VllmOptions,
    engine_arguments,
    priority,
    trace_headers,
)
from raglan_generator.settings import GeneratorSettings


def arguments(options: VllmOptions, **more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "model": "a-model",
        "max_model_len": None,
        "max_loras": 0,
        "max_lora_rank": 0,
        "shutdown_timeout_s": 10,
    }
    return engine_arguments(options, **(given | more))


def test_what_is_not_set_is_left_to_vllm() -> None:
    left = {"revision", "quantization", "max_model_len", "max_num_seqs", "max_num_batched_tokens"}
    left |= {"speculative_config", "otlp_traces_endpoint", "enable_lora"}
    assert not left & arguments(VllmOptions()).keys()


def test_the_queue_is_bounded_by_default() -> None:
    made = arguments(VllmOptions())
    assert made["max_num_queued_reqs"] > 0
    assert made["max_num_queued_tokens"] > 0


def test_nothing_of_a_request_is_logged() -> None:
    assert arguments(VllmOptions())["enable_log_requests"] is False


@pytest.mark.parametrize(("rank", "room"), [(1, 8), (8, 8), (9, 16), (300, 320), (512, 512)])
def test_adapters_get_the_next_larger_room(rank: int, room: int) -> None:
    made = arguments(VllmOptions(), max_loras=2, max_lora_rank=rank)
    assert (made["enable_lora"], made["max_loras"], made["max_lora_rank"]) == (True, 2, room)


@pytest.mark.parametrize(
    ("method", "least", "kind"),
    [
        ("ngram", {"num_speculative_tokens": 3}, Ngram),
        ("suffix", {}, Suffix),
        ("draft_model", {"model": "small", "num_speculative_tokens": 3}, DraftModel),
    ],
)
def test_speculation_is_one_variable_in_json(
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    least: dict[str, Any],
    kind: type[Ngram | Suffix | DraftModel],
) -> None:
    value = json.dumps({"method": method} | least)
    monkeypatch.setenv("RAGLAN_GENERATOR_SPECULATION", value)
    settings = load(GeneratorSettings)
    assert isinstance(settings.speculation, kind)
    sent = arguments(settings)["speculative_config"]
    assert sent == kind.model_validate({"method": method} | least).model_dump(exclude_none=True)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("{", "is not JSON"),
        ('{"method": "magic"}', "magic"),
        ('{"method": "ngram", "num_speculative_tokens": 3, "lookup": 4}', "lookup"),
        ('{"method": "ngram"}', "num_speculative_tokens"),
        ('{"method": "ngram", "num_speculative_tokens": 0}', "greater than 0"),
    ],
)
def test_speculation_that_cannot_be_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, value: str, said: str
) -> None:
    monkeypatch.setenv("RAGLAN_GENERATOR_SPECULATION", value)
    with pytest.raises(SettingsError, match="RAGLAN_GENERATOR_SPECULATION") as refused:
        load(GeneratorSettings)
    assert said in str(refused.value)


def test_an_empty_speculation_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGLAN_GENERATOR_SPECULATION", "")
    assert load(GeneratorSettings).speculation is None


@pytest.mark.parametrize("share", [0, 1.1])
def test_a_share_of_memory_is_a_share(share: float) -> None:
    with pytest.raises(ValidationError):
        VllmOptions(gpu_memory_utilization=share)


times = st.floats(min_value=0, max_value=1e7)


@given(times, times, st.sampled_from(Lane))
def test_in_a_lane_the_oldest_is_first(one: float, other: float, lane: Lane) -> None:
    older, younger = sorted((one, other))
    assert priority(lane, older, 10) <= priority(lane, younger, 10)


@given(times, st.floats(min_value=0, max_value=9.99))
def test_a_question_passes_bulk_work_that_came_shortly_before(at: float, later: float) -> None:
    assert priority(Lane.INTERACTIVE, at + later, 10) < priority(Lane.BULK, at, 10)


@given(times, st.floats(min_value=10.01, max_value=1e5))
def test_bulk_work_that_has_waited_is_passed_by_nobody(at: float, later: float) -> None:
    assert priority(Lane.BULK, at, 10) < priority(Lane.INTERACTIVE, at + later, 10)


def test_trace_headers_go_where_spans_have_a_place_to_go() -> None:
    headers = {"traceparent": "00-1-2-01"}
    assert trace_headers(headers, VllmOptions()) is None
    assert trace_headers(headers, VllmOptions(otlp_traces_endpoint="http://c:4317")) == headers
