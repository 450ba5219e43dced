"""What parity measures, on engines of a few lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from raglan_embedder import parity
from raglan_embedder.outputs import EncodeItem, TextVectors

IDS = [[number] * (1 + number % 7) for number in range(1, 60)]


def engine(
    vector: Callable[[EncodeItem, Sequence[EncodeItem]], list[float]],
) -> Callable[[Sequence[EncodeItem]], list[TextVectors]]:
    """A stream whose vectors may depend on the batch."""

    def run(batch: Sequence[EncodeItem]) -> list[TextVectors]:
        rows = [np.array(vector(text, batch), np.float32) for text in batch]
        return [TextVectors(len(text.ids), row) for text, row in zip(batch, rows, strict=True)]

    return run


def test_an_engine_that_looks_at_its_text_alone_does_not_drift() -> None:
    alone = engine(lambda text, batch: [float(text.ids[0]), 1.0])
    assert parity.drift(alone, IDS) == 0


def test_drift_is_the_most_that_batch_mates_change() -> None:
    crowded = engine(lambda text, batch: [1.0, 0.001 * len(batch)])
    assert 0.001 <= parity.drift(crowded, IDS) <= 0.008


def scores(*rows: Sequence[float]) -> NDArray[np.float32]:
    return np.array(rows, np.float32)


@pytest.mark.parametrize(
    ("row", "grades", "expected"),
    [
        ([3, 2, 1], {0: 1}, (1.0, 1.0)),
        ([3, 2, 1], {1: 1}, (1.0, 1 / np.log2(3))),
        ([3, 2, 1], {0: 1, 1: 2}, (1.0, (1 + 2 / np.log2(3)) / (2 + 1 / np.log2(3)))),
        ([20 - i for i in range(20)], {0: 1, 15: 1}, (0.5, 1 / (1 + 1 / np.log2(3)))),
        ([20 - i for i in range(20)], {15: 1}, (0.0, 0.0)),
    ],
)
def test_quality_is_recall_and_ndcg_at_ten(
    row: list[float], grades: dict[int, int], expected: tuple[float, float]
) -> None:
    assert parity.quality(scores(row), [grades]) == pytest.approx(expected)


def test_texts_are_spread_evenly_over_the_set() -> None:
    texts = [str(number) for number in range(100)]
    assert parity.spread(texts, 4) == ["0", "25", "50", "75"]
    assert parity.spread(texts, 200) == texts


def test_a_beir_folder_is_read_with_its_judged_queries(tmp_path: Path) -> None:
    def write(name: str, rows: list[dict[str, str]]) -> None:
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))

    write("corpus.jsonl", [{"_id": "a", "title": "T", "text": "x"}, {"_id": "b", "text": "y"}])
    write("queries.jsonl", [{"_id": "1", "text": "q"}, {"_id": "2", "text": "not judged"}])
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\tb\t2\n1\ta\t0\n")
    found = parity.load_searches(tmp_path)
    assert found == parity.Searches(["T x", "y"], ["q"], [{1: 2}])


def test_a_folder_without_the_set_is_no_set(tmp_path: Path) -> None:
    assert parity.load_searches(tmp_path) is None


def test_the_projects_documentation_has_enough_texts() -> None:
    assert len(parity.documentation()) >= 100


def test_a_wrong_engine_is_refused_with_the_names_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        parity.main(["--a", "tensorrt"])
    assert ended.value.code == 2
    assert "'tensorrt' (choose from 'openvino', 'onnx', 'torch')" in capsys.readouterr().err


def test_a_precision_the_engine_lacks_is_refused_with_what_it_has(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    wrong = ["--a", "torch", "--a-precision", "int8", "--a-device", "cpu"]
    assert parity.main([*wrong, "--data", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "precision is 'int8'; torch on cpu offers f32 and bf16" in said
    assert "search quality is not measured" in said


def test_the_table_says_what_was_not_measured_and_what_drifts() -> None:
    a = parity.Figures("onnx", "f32", "cpu", drift=0.0)
    b = parity.Figures("torch", "f32", "cpu", drift=3e-7, recall_at_10=0.7833, ndcg_at_10=0.6451)
    shown = parity.table(parity.Parity("m", 500, "SciFact", 0.99, 0.999, a, b))
    lines = [line.split() for line in shown.splitlines()]
    assert ["recall@10", "on", "SciFact", "not", "measured", "0.7833"] in lines
    assert ["same", "bytes", "in", "30", "batches", "yes", "no,", "up", "to", "3.0e-07"] in lines
    assert "min 0.99000, mean 0.99900" in shown
