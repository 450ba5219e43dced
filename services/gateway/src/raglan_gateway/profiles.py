"""Named sets of pipeline settings: built in, or of the operator's file."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from raglan.errors import InvalidInput
from raglan.identifiers import shortened
from raglan.settings import SettingsError

from raglan_gateway.api import schemas
from raglan_gateway.api.preference_schemas import Boost
from raglan_gateway.query import DEFAULT_GENERATOR
from raglan_gateway.strategies.strategy import MAX_QUERIES, SecondTry, Strategy

Body = TypeVar("Body", bound=schemas.SearchRequest)
_NAME: Final = StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")
Name = Annotated[str, _NAME]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Profile(_Strict):
    """Settings of a pipeline; what is unset is as without a profile."""

    description: str = ""
    instructions: Annotated[str, Field(max_length=3_800)] = ""
    """For the language model, behind those that every prompt begins with."""
    language: Annotated[str, Field(max_length=64, pattern=r"^[^\r\n]*$")] = ""
    """Language of the answers, as the model is told: "German"."""
    top_k: Annotated[int, Field(ge=1)] | None = None
    mode: Literal["hybrid", "dense", "lexical"] | None = None
    rerank: bool | None = None
    min_score: Annotated[float, Field(ge=0, le=1)] | None = None
    boosts: Annotated[list[Boost], Field(max_length=8)] | None = None
    diversity: Annotated[float, Field(ge=0, le=1)] | None = None
    expand_tokens: Annotated[int, Field(ge=0)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    generator: Annotated[list[Name], Field(max_length=8)] = Field(default_factory=list)
    """Names of generators; the next is asked when one fails before its answer begins."""
    strategy: Strategy | None = None
    query_count: Annotated[int, Field(ge=1, le=MAX_QUERIES)] | None = None
    rewriter: Name = ""
    """Name of the generator whose model writes search texts; else the first of `generator`."""
    second_try: SecondTry | None = None
    second_try_below: Annotated[float, Field(ge=0, le=1)] | None = None

    @property
    def writes_with(self) -> str:
        """Name of the generator whose model writes search texts."""
        return self.rewriter or next(iter(self.generator), DEFAULT_GENERATOR)

    @property
    def has_strategy(self) -> bool:
        """Return whether it needs a language model that writes search texts."""
        second = self.second_try or SecondTry.NONE
        return bool({self.strategy or Strategy.NONE, second.strategy} - {Strategy.NONE})

    @property
    def prompt(self) -> str:
        """Instructions and language, as the generator is told."""
        language = f"Answer in this language: {self.language}." if self.language else ""
        return "\n".join(filter(None, (self.instructions.strip(), language)))


class _File(_Strict):
    profiles: dict[Name, Profile] = Field(default_factory=dict)
    collections: dict[str, Name] = Field(default_factory=dict)
    """Profile of the questions to a collection that name none."""


BUILT_IN: Final[Mapping[str, Profile]] = {
    "fast": Profile(description="Five passages, not reranked.", top_k=5, rerank=False),
    "balanced": Profile(description="The defaults of a request."),
    "thorough": Profile(description="Twenty passages, reranked.", top_k=20, rerank=True),
}
_OF_REQUEST: Final = (
    *("top_k", "mode", "rerank", "min_score", "max_tokens", "temperature", "top_p"),
    *("strategy", "query_count", "second_try", "second_try_below", "expand_tokens"),
    *("boosts", "diversity"),
)


class Profiles:
    """Profiles by name. A field that a request sets itself is never replaced.

    Args:
        given: profiles besides those built in, or in their place.
        by_collection: name of a collection -> name of its profile.
    """

    def __init__(
        self,
        given: Mapping[str, Profile] | None = None,
        by_collection: Mapping[str, str] | None = None,
    ) -> None:
        self._profiles = {**BUILT_IN, **(given or {})}
        self._by_collection = dict(by_collection or {})

    def names(self) -> tuple[str, ...]:
        """Return the names of all profiles."""
        return tuple(self._profiles)

    def with_strategy(self) -> Iterator[tuple[str, Profile]]:
        """Yield the profiles that need a language model to write search texts, with their names."""
        for name, profile in self._profiles.items():
            if profile.has_strategy:
                yield name, profile

    def require(self, name: str) -> None:
        """Check that there is a profile of that name.

        Raises:
            InvalidInput: there is none; the message names those that there are.
        """
        if name not in self._profiles:
            known = ", ".join(self._profiles)
            raise InvalidInput(
                f"There is no profile {shortened(name)}; the profiles are: {known} "
                "(RAGLAN_GATEWAY_PROFILES_FILE)."
            )

    def apply(
        self, body: Body, default_collection: str, own: Mapping[str, str] | None = None
    ) -> tuple[Body, Profile]:
        """Return the body with the settings of its profile, and the profile.

        Args:
            body: the request.
            default_collection: searched where the request names none.
            own: name of a collection -> the profile that it names itself, before that of the file.

        Raises:
            InvalidInput: there is no profile of that name.
        """
        profile = self._of(body, default_collection, own or {})
        known = type(body).model_fields
        values: dict[str, Any] = {
            field: value
            for field in _OF_REQUEST
            if field in known
            and field not in body.model_fields_set
            and (value := getattr(profile, field)) is not None
        }
        return (body.model_copy(update=values) if values else body), profile

    def _of(
        self, body: schemas.SearchRequest, default_collection: str, own: Mapping[str, str]
    ) -> Profile:
        name = body.profile
        if name is None:
            searched = body.collections or [default_collection]
            # A profile that has left the file since a collection named it is as none.
            known = {each: name for each, name in own.items() if name in self._profiles}
            names = {known.get(each) or self._by_collection.get(each) for each in searched}
            # Of several collections with different profiles, none decides.
            name = names.pop() if len(names) == 1 else None
        if name is None:
            return BUILT_IN["balanced"]
        self.require(name)
        return self._profiles[name]


def read(path: Path | None, generators: Collection[str]) -> Profiles:
    """Read the profiles of a TOML file; None for those built in alone.

    Args:
        path: the file.
        generators: names that a profile's `generator` may have besides `default`.

    Raises:
        SettingsError: it cannot be read, or a value in it is wrong; the text says which.
    """
    if path is None:
        return Profiles()
    try:
        content = _File.model_validate(tomllib.loads(path.read_text("utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        raise SettingsError(f"RAGLAN_GATEWAY_PROFILES_FILE {path}: {error}") from None
    known = {DEFAULT_GENERATOR, *generators}
    for name, profile in content.profiles.items():
        named = [*profile.generator, profile.writes_with]
        if unknown := [each for each in named if each not in known]:
            raise SettingsError(
                f"RAGLAN_GATEWAY_PROFILES_FILE {path}: profile {name} names the generator "
                f"{unknown[0]}; there are {', '.join(sorted(known))} (RAGLAN_GATEWAY_GENERATORS)."
            )
    for collection, name in content.collections.items():
        if name not in content.profiles and name not in BUILT_IN:
            raise SettingsError(
                f"RAGLAN_GATEWAY_PROFILES_FILE {path}: collection {collection} names the profile "
                f"{name}, which does not exist."
            )
    return Profiles(content.profiles, content.collections)
