"""Placements: what every one must keep to, and which is chosen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_configs import LLAMA_8B, LLAMA_70B, QWEN2_HALF_B
from raglan_cli.placement import architecture, planning, quantisation
from raglan_cli.placement.devices import Device, parse_devices
from raglan_cli.placement.encoders import BUNDLED, encoder_memory
from raglan_cli.placement.planning import LanguageModel, Plan, Request, plan
from raglan_cli.placement.sizes import GB, InvalidSize, parse_size

ENCODERS = {name: encoder_memory(BUNDLED) for name in ("embedder", "reranker")}


def model(config: dict[str, object]) -> LanguageModel:
    read = architecture.read(config)
    return LanguageModel(read, quantisation.of_config(read.quantization, read.dtype))


def planned(config: dict[str, object], *gpus: str, **more: object) -> Plan:
    fields = {"encoders": ENCODERS, "context": 8192, "streams": 2} | more
    return plan(Request(parse_devices(gpus), model(config), **fields))  # type: ignore[arg-type]


def homes(made: Plan) -> dict[str, list[str]]:
    assert made.placement is not None
    return {
        service: [share.device.name for share in made.placement.of(service)]
        for service in ("generator", "embedder", "reranker")
    }


def test_services_on_one_gpu_have_shares_that_add_up() -> None:
    made = planned(LLAMA_8B, "24GB")
    assert made.placement is not None
    shares = {share.service: share.share for share in made.placement.shares}
    assert shares.keys() == {"generator", "embedder", "reranker"}
    assert sum(shares.values()) <= 1 - 0.04 + 1e-9


def test_a_free_gpu_is_for_the_encoders() -> None:
    made = planned(LLAMA_8B, "24GB", "24GB")
    assert homes(made) == {"generator": ["0"], "embedder": ["1"], "reranker": ["1"]}
    assert made.placement is not None
    assert made.placement.of("generator")[0].share == 0.9


def test_the_larger_gpu_is_for_the_generator() -> None:
    assert homes(planned(LLAMA_8B, "24GB", "80GB"))["generator"] == ["1"]


def test_a_model_that_is_too_large_for_one_gpu_is_split() -> None:
    assert homes(planned(LLAMA_70B, "3x96GB")) == {
        "generator": ["0", "1"],
        "embedder": ["2"],
        "reranker": ["2"],
    }


def test_a_model_is_not_split_over_slices_or_unlike_gpus() -> None:
    assert planned(LLAMA_70B, "80GB", "96GB").placement is None
    assert planned(LLAMA_8B, "80GB/1g.10gb,1g.10gb,1g.10gb", streams=1).placement is None


def test_every_service_gets_its_slice() -> None:
    made = planned(LLAMA_8B, "80GB/3g.40gb,2g.20gb,1g.10gb")
    assert homes(made) == {"generator": ["0:0"], "embedder": ["0:2"], "reranker": ["0:2"]}


def test_without_a_language_model_the_encoders_share_a_gpu() -> None:
    made = plan(Request(parse_devices(["24GB", "24GB"]), encoders=ENCODERS))
    assert made.placement is not None
    assert len({share.device for share in made.placement.shares}) == 1


def test_heads_bound_the_split() -> None:
    assert model(QWEN2_HALF_B).splits == [1, 2]


def test_what_would_fit_fits() -> None:
    """Each number of the advice is the largest that does."""
    request = Request(parse_devices(["24GB"]), model(LLAMA_8B), 8192, 32, ENCODERS)
    refused = plan(request)
    assert refused.placement is None
    streams = int(refused.advice[0].removeprefix("--streams "))
    for count, fits in ((streams, True), (streams + 1, False)):
        made = plan(Request(request.devices, request.model, 8192, count, ENCODERS))
        assert (made.placement is not None) is fits
    assert "2 GPUs of 24.0 GB" not in refused.advice[:-1]


def test_the_reason_names_parts_and_sizes() -> None:
    request = Request(parse_devices(["24GB"]), model(LLAMA_70B), 8192, 32, ENCODERS)
    said = planning.shortfall(request)
    assert said.startswith("It does not fit on 24.0 GB: needed are the generator ")
    assert "weights 141.1 GB" in said
    assert "32 streams of 8,192 tokens 85.9 GB" in said


SIZES = st.sampled_from(["8GB", "16GB", "24GB", "48GB", "80GB", "80GB/3g.40gb,3g.40gb", "141GB"])


@given(
    st.lists(SIZES, min_size=1, max_size=4),
    st.sampled_from([LLAMA_8B, LLAMA_70B, QWEN2_HALF_B]),
    st.integers(1, 64),
    st.sampled_from([1024, 8192, 32_768]),
)
def test_no_device_is_promised_twice(
    gpus: list[str], config: dict[str, object], streams: int, context: int
) -> None:
    made = planned(config, *gpus, streams=streams, context=context)
    if made.placement is None:
        return
    placement = made.placement
    for device in {share.device for share in placement.shares}:
        there = placement.on(device)
        assert sum(share.share for share in there) <= 1
        assert all(share.size <= share.share * device.size for share in there)
    assert placement.spare_streams >= streams
    assert len({share.device for share in placement.of("generator")}) in (1, 2, 4)


@pytest.mark.parametrize(
    ("text", "size"),
    [("24GB", 24 * GB), ("24 gb", 24 * GB), ("22.5GiB", 45 * 2**29), ("24564MiB", 24_564 * 2**20)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_gpus_are_numbered_in_their_order() -> None:
    assert [(device.name, device.size) for device in parse_devices(["2x24GB", "80GB/1g.10gb"])] == [
        ("0", 24 * GB),
        ("1", 24 * GB),
        ("2:0", 10 * GB),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("24", "'24' is no size of memory; write 24GB"),
        ("24GO", "'24GO' is no size of memory"),
        ("big", "'big' is no size"),
        ("0GB", "'0GB' is no memory at all"),
        ("twox24GB", "'two' is no number of GPUs"),
        ("99x24GB", "There are 99 GPUs and slices; the limit is 64"),
        ("80GB/40gb", "'40gb' is no MIG profile"),
        ("80GB/4g.40gb,4g.40gb", "the slices take 8 sevenths"),
        ("80GB/3g.40gb,3g.40gb,1g.10gb", "the slices take 90.0 GB; the GPU has 80.0 GB"),
    ],
)
def test_a_gpu_that_is_none(text: str, said: str) -> None:
    with pytest.raises(InvalidSize, match=said):
        parse_devices([text])


def test_a_device_says_what_it_is() -> None:
    assert str(Device(1, 40 * GB, "3g.40gb")) == "slice 3g.40gb 0 of GPU 1"
