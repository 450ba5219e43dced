"""A Llama of 7 million random weights, made in a second: real to vLLM, and no download.

It speaks no language, but it has all that a served model has: a byte-level BPE that any text
survives, a chat template, special tokens, a LoRA adapter where one is asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import decimal
import json
import logging
import optparse
import statistics
import sys
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

MAX_MODEL_LEN: Final = 4096
HIDDEN: Final = 256
LAYERS: Final = 4
VOCABULARY: Final = 2048
SEED: Final = 20_261_121
SPECIAL: Final = ("<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "<|{{ message.role }}|>\n{{ message.content }}<|end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def make(folder: Path, *, layers: int = LAYERS, seed: int = SEED) -> None:
    """Write model, tokenizer and chat template into `folder`, the same each time."""
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_MODEL_LEN,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def make_adapter(folder: Path, *, rank: int = 8) -> None:
    """Write a LoRA adapter of the model into `folder`, strong enough to change what it says."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(SEED)
    weights = {}
    for layer in range(LAYERS):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        for part, shape in (("lora_A", (rank, HIDDEN)), ("lora_B", (HIDDEN, rank))):
            weights[f"{name}.{part}.weight"] = torch.randn(shape, generator=generator)
    save_file(weights, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "",
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": ["q_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")


def _tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        model_max_length=MAX_MODEL_LEN,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _corpus() -> list[str]:
    """English at hand on every machine with Python: what its own modules say of themselves."""
    modules = (argparse, asyncio, decimal, logging, optparse, statistics)
    return [
        doc
        for module in modules
        for thing in (module, *vars(module).values())
        if isinstance(doc := getattr(thing, "__doc__", None), str)
    ]


if __name__ == "__main__":
    make(Path(sys.argv[1]))
