"""Output heads besides the dense vector: term weights and token vectors.

Term weights serve lexical search, token vectors late interaction.

The heads of BGE-M3 (Chen et al., M3-Embedding, 2024, section 3.2): linear layers that lie beside
the encoder as `sparse_linear.pt` and `colbert_linear.pt`. They are converted once, in a process
that has torch (`python -m raglan.encoders.heads`), and applied here in numpy on the token vectors
of any engine. A model without them still has its own token vectors.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from raglan.encoders.conversion import made_once, report
from raglan.encoders.model import EncoderModel
from raglan.tensors import SparseVector

Matrix = NDArray[np.float32]

_FORMAT: Final = 1
"""Counts up when what is in the converted file changes, so that old caches are not used."""

_SPARSE: Final = "sparse_linear"
_TOKENS: Final = "colbert_linear"


@dataclass(frozen=True, slots=True)
class Linear:
    """y = W x + b, on rows."""

    weight: Matrix
    """(out, hidden)."""

    bias: Matrix
    """(out,)."""

    def __call__(self, rows: Matrix) -> Matrix:
        """Apply the layer to rows of shape (n, inputs)."""
        out: Matrix = rows @ self.weight.T + self.bias
        return out


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of one model; without any, the heads of a plain encoder."""

    sparse: Linear | None = None
    tokens: Linear | None = None
    special: frozenset[int] = frozenset()
    """Token ids that stand for no term, and so weigh nothing."""

    def sparse_vector(self, states: Matrix, ids: list[int]) -> SparseVector:
        """The weight of each term of one text: relu of the head, the highest of its occurrences.

        Args:
            states: (tokens, hidden), the encoder's last.
            ids: token ids, special ones included.
        """
        if self.sparse is None:
            raise TypeError("the model has no sparse head; `outputs.refuse` comes first")
        weights = self.sparse(states)[:, 0]
        best: dict[int, float] = {}
        for token, weight in zip(ids, weights.tolist(), strict=True):
            if weight > best.get(token, 0.0) and token not in self.special:
                best[token] = weight
        indices = sorted(best)
        return SparseVector(
            np.array(indices, np.uint32), np.array([best[i] for i in indices], np.float32)
        )

    def token_vectors(self, states: Matrix) -> Matrix:
        """L2-normalised vectors for late interaction, (tokens, dim).

        With a head, of all tokens but the first, whose vector stands for the whole text; without,
        the encoder's last states.
        """
        return unit_rows(states if self.tokens is None else self.tokens(states[1:]))


def unit_rows(vectors: Matrix) -> Matrix:
    """Rows of length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Matrix = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32, copy=False)
    return unit


def load(model: EncoderModel, cache_dir: Path) -> Heads:
    """The heads of `model`, converted on the first call: seconds then, milliseconds later.

    Raises:
        Unavailable: they cannot be converted, or the cache not be written.
    """
    files = [file for name in (_SPARSE, _TOKENS) if (file := _file(model.path, name)).is_file()]
    if not files:
        return Heads()
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
    converted = cache_dir / "heads" / f"{digest}-v{_FORMAT}.npz"
    with np.load(made_once(model, converted, __name__), allow_pickle=False) as arrays:
        linear = {
            name: Linear(arrays[f"{name}.weight"], arrays[f"{name}.bias"])
            for name in (_SPARSE, _TOKENS)
            if f"{name}.weight" in arrays
        }
    return Heads(linear.get(_SPARSE), linear.get(_TOKENS), _special_ids(model.path))


def convert(folder: Path, target: Path) -> None:
    """Write the heads in `folder` as float32 arrays."""
    report("converting heads")
    import torch

    arrays: dict[str, Matrix] = {}
    for name in (_SPARSE, _TOKENS):
        if (file := _file(folder, name)).is_file():
            state = torch.load(file, map_location="cpu", weights_only=True)
            for part in ("weight", "bias"):
                arrays[f"{name}.{part}"] = state[part].float().numpy()
    with target.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]  # numpy's stub lacks **arrays


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.pt"


def _special_ids(folder: Path) -> frozenset[int]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    added = tokenizer.get_added_tokens_decoder()
    return frozenset(number for number, token in added.items() if token.special)


def main() -> None:
    """Command line: `python -m raglan.encoders.heads FOLDER FILE`."""
    parser = argparse.ArgumentParser(prog="raglan.encoders.heads")
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    convert(arguments.folder, arguments.file)


if __name__ == "__main__":
    main()
