"""Models of the right shape with random weights, made on the spot: no download, a second each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

TERMS = """a an and are as at be budget by can does few for from has how in is it its language light
load many most of on one or plant query retry sentence small sugar text that the this to turns was
water what when which with word words"""
LONGEST = 64


@dataclass(frozen=True)
class Size:
    """How large a transformer is; unless told, small."""

    layers: int = 2
    hidden: int = 32
    heads: int = 2
    vocabulary: int = 0
    """0 means as many terms as the tokenizer has."""

    longest: int = LONGEST
    """Tokens of a text."""

    def config(self, tokenizer) -> dict[str, int]:  # type: ignore[no-untyped-def]
        """What the configurations of BERT and of XLM-RoBERTa call it."""
        return {
            "vocab_size": self.vocabulary or len(tokenizer),
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.hidden,
            "pad_token_id": tokenizer.pad_token_id,
        }


SMALL = Size()


def bge_m3(folder: Path, size: Size = SMALL) -> Path:
    """An XLM-RoBERTa encoder with CLS pooling, and both heads of BGE-M3."""
    import torch
    import transformers

    torch.manual_seed(0)
    tokenizer = _tokenizer()
    config = transformers.XLMRobertaConfig(
        **size.config(tokenizer),
        max_position_embeddings=size.longest + 2,
        type_vocab_size=1,
        # Wide enough that states differ from token to token, as a trained model's do; less so in
        # large ones, where the sums would leave the range of f16.
        initializer_range=0.3 if size.hidden < 100 else 0.02,
    )
    transformers.XLMRobertaModel(config).save_pretrained(folder)
    weighing = torch.nn.Linear(size.hidden, 1)
    torch.nn.init.constant_(weighing.bias, 1.1)  # so that some terms weigh nothing, and most do
    torch.save(weighing.state_dict(), folder / "sparse_linear.pt")
    torch.save(torch.nn.Linear(size.hidden, size.hidden).state_dict(), folder / "colbert_linear.pt")
    return _finish(folder, tokenizer, size, "cls")


def minilm(folder: Path, size: Size = SMALL) -> Path:
    """A BERT encoder with mean pooling."""
    import torch
    import transformers

    torch.manual_seed(0)
    tokenizer = _tokenizer()
    config = transformers.BertConfig(**size.config(tokenizer), max_position_embeddings=size.longest)
    transformers.BertModel(config).save_pretrained(folder)
    return _finish(folder, tokenizer, size, "mean")


def cross_encoder(folder: Path, *, labels: int = 1, segments: int = 2) -> Path:
    """A cross-encoder of two layers: BERT, with as many `segments` as token types."""
    import torch
    import transformers

    torch.manual_seed(0)
    tokenizer = _tokenizer(segments=True)
    if segments == 1:
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    config = transformers.BertConfig(
        **SMALL.config(tokenizer),
        max_position_embeddings=SMALL.longest,
        type_vocab_size=segments,
        num_labels=labels,
        initializer_range=0.3,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def judge(folder: Path) -> Path:
    """A language model of two layers, Qwen3, with "yes", "no" and the marks of turns."""
    import torch
    import transformers

    torch.manual_seed(0)
    tokenizer = _tokenizer(longest=512)
    tokenizer.add_tokens(["yes", "no"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    config = transformers.Qwen3Config(
        **Size(heads=2).config(tokenizer),
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=512,
        initializer_range=0.3,
    )
    transformers.Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(*, segments: bool = False, longest: int = LONGEST):  # type: ignore[no-untyped-def]
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
        model_max_length=longest,
        model_input_names=[*inputs, "token_type_ids"] if segments else inputs,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


def _finish(folder: Path, tokenizer, size: Size, pooling: str) -> Path:  # type: ignore[no-untyped-def]
    """Write what makes a transformer a model of sentence-transformers."""
    tokenizer.model_max_length = size.longest
    tokenizer.save_pretrained(folder)
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    _write(
        folder / "modules.json",
        [
            {
                "idx": idx,
                "name": str(idx),
                "path": path,
                "type": f"sentence_transformers.models.{kind}",
            }
            for idx, (kind, path) in enumerate(paths.items())
        ],
    )
    modes = {
        f"pooling_mode_{mode}": mode.startswith(pooling) for mode in ("cls_token", "mean_tokens")
    }
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": size.hidden} | modes)
    (folder / "2_Normalize").mkdir(exist_ok=True)
    return folder


def _write(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), "utf-8")
