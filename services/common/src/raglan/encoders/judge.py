"""Reranking by a language model's "yes" or "no".

Qwen3-Reranker (Zhang et al., 2025) and models tuned like it, on torch: the model judges whether a
passage answers the query.

The prompt is the one they were trained with. The score is the difference of the two tokens' logits
at the end of the prompt: the log odds of "yes" among the two, as the authors use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from raglan.encoders.cross_encoder import CrossEncoder
from raglan.encoders.device import Precision
from raglan.encoders.model import EncoderModel
from raglan.encoders.readability import ReadabilityMeter
from raglan.encoders.sessions import pad
from raglan.encoders.tokenizer import PairIds, first_ids
from raglan.errors import InvalidInput, Unavailable
from raglan.readability import Readability

INSTRUCTION: Final = "Given a web search query, retrieve relevant passages that answer the query"
"""The default instruction of the models' authors."""

_SYSTEM: Final = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".'
)
_BEFORE: Final = f"<|im_start|>system\n{_SYSTEM}<|im_end|>\n<|im_start|>user\n"
_AFTER: Final = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
_MEASURED_CHARS: Final = 1_000


class JudgePrompts:
    """Query and passage as the model reads them; as `PairTokenizers`.

    Args:
        max_tokens: of the whole prompt.
        passage_tokens: of the passage in it; what is longer is cut at the end.
    """

    def __init__(
        self, folder: Path, max_tokens: int, *, passage_tokens: int, instruction: str
    ) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._max_tokens = max_tokens
        self._passage_tokens = passage_tokens
        self._instruction = instruction or INSTRUCTION
        self._after = self._ids(_AFTER)
        self._meter = ReadabilityMeter(self._tokenizer)

    def readability(self, text: str) -> Readability:
        """Measure how well the model reads the beginning of `text`."""
        text = text[:_MEASURED_CHARS]
        return self._meter.measure(text, self._tokenizer.encode(text, add_special_tokens=False))

    def pairs(self, query: str, passages: Sequence[str]) -> list[PairIds]:
        """Token ids of the question whether each passage answers `query`.

        Raises:
            InvalidInput: the query alone leaves no room for a passage.
        """
        asked = f"<Instruct>: {self._instruction}\n<Query>: {_inert(query)}\n<Document>: "
        before = self._ids(_BEFORE + asked)
        room = min(self._passage_tokens, self._max_tokens - len(before) - len(self._after))
        if room < 1:
            raise InvalidInput(
                f"query takes {len(before) + len(self._after)} tokens with its prompt; the model "
                f"reads {self._max_tokens} of query and passage together. Shorten the query."
            )
        read = first_ids(self._tokenizer, [_inert(text) for text in passages], room)
        return [PairIds(ids := [*before, *each, *self._after], [0] * len(ids)) for each in read]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def _inert(text: str) -> str:
    """`text` without the marks that would end the user's turn: a passage is not to speak for it."""
    return text.replace("<|", "< |")


def load(model: EncoderModel, *, device: str, precision: Precision) -> CrossEncoder:
    """Load a language model that judges. Blocks for seconds: call it in a thread.

    Raises:
        InvalidInput: it has no single tokens for "yes" and "no", or the device no such precision.
        Unavailable: no such GPU, or the files cannot be loaded.
    """
    tokenizer = Tokenizer.from_file(str(model.path / "tokenizer.json"))
    ids = [tokenizer.token_to_id(word) for word in ("no", "yes")]
    answers = [number for number in ids if number is not None]
    if len(answers) < len(ids):
        raise InvalidInput(
            f'{model.id} has no tokens "yes" and "no": is it a language model that was tuned to '
            "rerank, such as Qwen/Qwen3-Reranker-0.6B (RAGLAN_RERANKER_MODEL)?"
        )
    judge = _TorchJudge(model, answers, device=device, precision=precision)
    return CrossEncoder((judge.scores,), judge.device, judge.dtype, judge.uses)


class _TorchJudge:
    """One model on one device. One caller at a time."""

    def __init__(
        self, model: EncoderModel, answers: list[int], *, device: str, precision: Precision
    ) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        from raglan.encoders import device as devices
        from raglan.encoders import device_use
        from raglan.encoders.torch_model import DTYPES, usable_dtype

        self.device = devices.torch_device(device)
        self.dtype = usable_dtype(precision, self.device)
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                model.path, dtype=DTYPES[self.dtype], local_files_only=True
            )
        except (OSError, ValueError, KeyError) as error:
            raise Unavailable(f"torch cannot load {model.path}: {error}") from error
        loaded = loaded.to(self.device).eval()
        self._states = loaded.get_decoder()
        self.uses = device_use.of_gpu(self._states, self._last_state, max_tokens=model.max_tokens)
        # Of the whole vocabulary's logits only the difference of two is wanted.
        with torch.inference_mode():
            no, yes = loaded.get_output_embeddings().weight[answers].float()
            self._direction = yes - no

    def _last_state(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> float:
        import torch

        inputs = {"input_ids": ids, "attention_mask": mask}
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(x).to(self.device) for name, x in inputs.items()}
            return float(self._states(**tensors).last_hidden_state[-1, -1, 0])

    def scores(self, batch: Sequence[PairIds]) -> NDArray[np.float64]:
        """The log odds of "yes", (batch,)."""
        import torch

        from raglan.encoders.torch_model import device_errors

        ids, mask = (torch.from_numpy(each).to(self.device) for each in pad([p.ids for p in batch]))
        # Padding stands behind the text, which no token of a causal model looks at.
        last = mask.sum(dim=1) - 1
        with torch.inference_mode(), device_errors(self.device):
            states = self._states(input_ids=ids, attention_mask=mask).last_hidden_state
            ends = states[torch.arange(len(batch), device=self.device), last].float()
            found: NDArray[np.float64] = (ends @ self._direction).double().cpu().numpy()
        return found
