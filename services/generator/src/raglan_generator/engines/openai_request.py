"""The body of a chat completion request, without the parameters that its server refuses."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from raglan.cache import digest

from raglan_generator.generation import Request, Sampling
from raglan_generator.language_model import Prompt

_RENAMED: Final = {"max_tokens": "max_completion_tokens"}
"""Parameters that OpenAI's reasoning models accept only under another name."""

_OPTIONAL: Final = frozenset(
    {"max_tokens", "max_completion_tokens", "stream_options", "temperature", "top_p", "seed"}
    | {"stop", "cache_salt"}
)
"""Parameters that a request can omit."""


class Parameters:
    """Builds bodies; remembers by model what its server refuses. Belongs to one event loop.

    Args:
        model: the server's name of it.
        sampling: where a request leaves it open; None is not sent.
        adapters: further models of the server, by the name that a request gives them.
    """

    def __init__(self, model: str, sampling: Sampling, adapters: Mapping[str, str]) -> None:
        self._model = model
        self._sampling = sampling
        self._adapters = adapters
        self._refused: defaultdict[str, set[str]] = defaultdict(set)

    def body(self, prompt: Prompt, request: Request, without: set[str]) -> dict[str, Any]:
        """Build the request body.

        Args:
            prompt: the messages.
            request: sampling and limits of the answer.
            without: further parameters to leave out of this request.
        """
        asked, default = request.sampling, self._sampling
        model = self._adapters.get(request.adapter, self._model)
        body: dict[str, Any] = {
            "model": model,
            "messages": prompt.messages,
            "max_tokens": request.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for name in ("temperature", "top_p", "seed"):
            value = getattr(asked, name)
            value = getattr(default, name) if value is None else value
            if value is not None:
                body[name] = value
        if stop := asked.stop or default.stop:
            body["stop"] = stop
        if request.tenant:
            # Hashed, because a hosted server has no business with names of tenants.
            body["cache_salt"] = digest(request.tenant).hex()
        if request.json_schema:
            schema = {"name": "answer", "schema": json.loads(request.json_schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        refused = self._refused[model] | without
        for name in refused & body.keys():
            value = body.pop(name)
            if (other := _RENAMED.get(name)) and other not in refused:
                body[other] = value
        return body

    @staticmethod
    def optional(body: Mapping[str, Any]) -> frozenset[str]:
        """The parameters of `body` that the answer can do without."""
        return _OPTIONAL & body.keys()

    def remember(self, body: Mapping[str, Any], name: str) -> None:
        """The server refuses parameter `name` whatever its value: never send it again."""
        self._refused[body["model"]].add(name)
