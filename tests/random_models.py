"""Models of the right shape with random weights, made on the spot: no download, a second each."""

from __future__ import annotations

import json
from pathlib import Path

TERMS = """a an and are as at be budget by can does few for from has how in is it its language light
load many most of on one or plant query retry sentence small sugar text that the this to turns was
water what when which with word words"""
LONGEST = 64


def bge_m3(folder: Path) -> Path:
    """An XLM-RoBERTa encoder of two layers with CLS pooling, and both heads of BGE-M3."""
    import torch
    import transformers

    torch.manual_seed(0)
    tokenizer = _tokenizer()
    config = transformers.XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=LONGEST + 2,
        type_vocab_size=1,
        # Wide enough that states differ from token to token, as a trained model's do.
        initializer_range=0.3,
    )
    transformers.XLMRobertaModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    hidden = config.hidden_size
    torch.save(torch.nn.Linear(hidden, 1).state_dict(), folder / "sparse_linear.pt")
    torch.save(torch.nn.Linear(hidden, hidden).state_dict(), folder / "colbert_linear.pt")
    modules = ("Transformer", "Pooling", "Normalize")
    kinds = [f"sentence_transformers.models.{name}" for name in modules]
    paths = ["", "1_Pooling", "2_Normalize"]
    _write(
        folder / "modules.json",
        [
            {"idx": idx, "name": str(idx), "path": path, "type": kind}
            for idx, (path, kind) in enumerate(zip(paths, kinds, strict=True))
        ],
    )
    pooling = {"word_embedding_dimension": hidden, "pooling_mode_cls_token": True}
    _write(folder / "1_Pooling" / "config.json", pooling | {"pooling_mode_mean_tokens": False})
    (folder / "2_Normalize").mkdir(exist_ok=True)
    return folder


def cross_encoder(folder: Path, *, labels: int = 1, segments: int = 2) -> Path:
    """A cross-encoder of two layers: BERT, with as many `segments` as token types."""
    import torch
    import transformers

    torch.manual_seed(0)
    tokenizer = _tokenizer(segments=True)
    if segments == 1:
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=LONGEST,
        type_vocab_size=segments,
        pad_token_id=tokenizer.pad_token_id,
        num_labels=labels,
        initializer_range=0.3,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(*, segments: bool = False):  # type: ignore[no-untyped-def]
    """Words and, for the rest, letters; specials as XLM-RoBERTa has them."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    letters = [letter for code in range(33, 127) for letter in (chr(code), f"##{chr(code)}")]
    words = [word for word in TERMS.split() if len(word) > 1]
    vocabulary = {token: i for i, token in enumerate([*specials, *letters, *words])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B:1 </s>:1" if segments else "<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    inputs = ["input_ids", "attention_mask"]
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=LONGEST,
        model_input_names=[*inputs, "token_type_ids"] if segments else inputs,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


def _write(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), "utf-8")
