"""Settings of the generator."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    model_validator,
)
from raglan.settings import GrpcSettings

from raglan_generator.engines.vllm_options import VllmOptions


class GeneratorSettings(GrpcSettings, VllmOptions, env_prefix="RAGLAN_GENERATOR_"):
    """Answering by the generator."""

    port: int = Field(default=7104, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""

    engine: Literal["extractive", "openai", "vllm", "null"] = "extractive"
    """`extractive` quotes the passages, `openai` asks an OpenAI-compatible server, `vllm` runs a
    model itself. `null` writes numbered words and needs no model: for measuring the mesh."""

    base_url: str = ""
    """The OpenAI-compatible server's address up to `/v1`, e.g. http://127.0.0.1:8000/v1."""

    api_key: SecretStr = SecretStr("")
    """Sent to that server as a bearer token; empty sends none."""

    model: str = ""
    """The model: for `openai` the server's name of it, for `vllm` a folder or a hub id."""

    adapters: dict[str, str] = Field(default_factory=dict)
    """Further models that requests may name, as JSON: {"legal": "llama-3-legal"} for `openai`, the
    server's name of each; {"legal": "/models/legal-lora"} for `vllm`, the folder of a LoRA."""

    tokenizer: str = ""
    """Folder or file of the model's `tokenizer.json`, by which the `openai` engine measures
    prompts; empty estimates from their characters."""

    max_model_len: PositiveInt | None = None
    """Tokens that the model can take, prompt and answer together; without it `vllm` takes what the
    model says, and `openai` 8,192."""

    passage_order: Literal["popularity", "rank"] = "popularity"
    """Order of passages in a prompt: frequently requested ones first, so that a prefix cache
    serves them again, or by rank."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    """Sampling temperature of requests that set none; empty leaves it to the server of `openai`,
    and is 0 for `vllm`."""

    top_p: float | None = Field(default=None, gt=0, le=1)
    """Share of the probability mass to sample from, of requests that set none; empty leaves it to
    the server of `openai`, and is 1 for `vllm`."""

    thinking: Literal["auto", "opened"] = "auto"
    """Separation of the reasoning in a model's text from its answer. `auto` reads tags
    (`<think>...</think>`), and learns from a closing tag alone that the server's chat template
    opens the block. `opened` assumes so from the first answer on; `vllm` knows by itself."""

    max_thinking_chars: PositiveInt = 65_536
    """Longest reasoning of one answer, in characters; past it the answer is abandoned."""

    max_tokens: PositiveInt = 512
    """Tokens an answer may have when the request does not say."""

    max_tokens_limit: PositiveInt = 4096
    """Most tokens a request may ask for."""

    max_sentences: PositiveInt = 4
    """Most sentences, list items, rows or code blocks that the `extractive` engine quotes; a whole
    list counts once."""

    min_confidence: float = Field(default=0.33, ge=0, le=1)
    """Confidence below which the `extractive` engine abstains; 0 always answers."""

    min_relevance: float = Field(default=0.0, ge=0, le=1)
    """Relevance of the passages, by their words and their meaning, below which a language model is
not called and the answer abstains. By default the model is always called, and decides
    whether the passages answer; those with a history and no stand-alone form always go to it."""

    null_tokens: PositiveInt = 20
    """Tokens of an answer of the `null` engine."""

    null_first_token_ms: NonNegativeFloat = 0
    """Time from the request until the `null` engine's first token."""

    null_token_ms: NonNegativeFloat = 0
    """Time from each token of the `null` engine to the next."""

    max_passages: PositiveInt = 100
    """Most passages in a request."""

    max_question_chars: PositiveInt = 8_000
    """Longest question, in characters."""

    max_history_turns: PositiveInt = 100
    """Most turns of history in a request."""

    max_concurrency: PositiveInt = 256
    """Answers written at one time; more are refused as overloaded."""

    connect_timeout_s: PositiveFloat = 2
    """Seconds to reach the OpenAI-compatible server."""

    first_token_timeout_s: PositiveFloat = 5
    """Seconds from the request until its first token."""

    idle_timeout_s: PositiveFloat = 5
    """Seconds between two tokens."""

    @model_validator(mode="after")
    def _models_are_named(self) -> Self:
        if self.engine == "openai" and not self.base_url.startswith(("http://", "https://")):
            raise ValueError(
                "the openai engine needs RAGLAN_GENERATOR_BASE_URL, "
                "an address like http://127.0.0.1:8000/v1"
            )
        if self.engine in ("openai", "vllm") and not self.model:
            raise ValueError(f"the {self.engine} engine needs RAGLAN_GENERATOR_MODEL")
        return self
