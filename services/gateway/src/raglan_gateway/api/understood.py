"""The part of a reply that says how the question was understood."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from raglan_gateway.api.cacheable import Cacheable


class Understanding(BaseModel):
    """What was understood of a question, without a model."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    intent: Literal["lookup", "how-to", "comparison", "summary", "troubleshooting", "chit-chat"]
    """Chit-chat is answered without a search; the other values change nothing."""
    language: str | None
    """ISO 639-1; null where it is uncertain."""
    keywords: list[str]
    """Words that carry meaning, at most 16."""
    technical_terms: list[str]
    """Identifiers, versions, files, flags and error codes, at most 16."""
    synonyms: dict[str, list[str]]
    """Abbreviations written out, and what is written out abbreviated, as documents define them: the
    search was made for both."""


class Understood(Cacheable):
    """A reply to a question."""

    understanding: Understanding | None = None
    """How the question was understood; null in replies of an earlier version."""
