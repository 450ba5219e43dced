"""The sources file: one entry a source, read from YAML."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qs, urlsplit

import yaml
from pathspec import GitIgnoreSpec
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from raglan import access_tags, tenancy
from raglan import metadata as document_metadata
from raglan.errors import InvalidInput, RaglanError
from raglan.identifiers import COLLECTION_NAME, shortened
from raglan.url_policy import SettingNames, UrlPolicy

_MAX_FILE_BYTES: Final = 1024 * 1024
_MAX_SOURCES: Final = 1000
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _seconds(value: object) -> object:
    """Turn `90s`, `10m`, `12h` or `7d` into seconds."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d{1,9})([smhd])", value)
    if found is None:
        raise ValueError("write a duration as 90s, 10m, 12h or 7d")
    return int(found[1]) * _UNITS[found[2]]


def _several(value: object) -> object:
    """Take one name for a list of one."""
    return (value,) if isinstance(value, str) else value


TextFormat = Literal["text/plain", "text/markdown", "text/html"]
Duration = Annotated[int, BeforeValidator(_seconds), Field(ge=1, le=366 * 86_400)]
"""Seconds."""


class SourceSettings(BaseModel):
    """Settings of every kind of source."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    """Begins the ids of its documents, `name/...`; unique in the file."""
    kind: str
    collection: str = Field(pattern=COLLECTION_NAME)
    """Must exist."""
    tenant: str = ""
    every: Duration = 600
    """From the end of a sync to the next one."""
    enabled: bool = True
    """False stops syncing; its documents stay."""
    purge: bool = False
    """Delete its documents, and sync no more."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    """Of every document, besides `source`."""
    access: tuple[str, ...] | None = None
    """Tags of which a caller must hold one to find its documents; without it, each document keeps
    those that it was given."""
    include: tuple[str, ...] = ()
    """Patterns as in .gitignore; with any, only documents that match one are read."""
    exclude: tuple[str, ...] = ()
    max_documents: int = Field(default=100_000, ge=1, le=1_000_000)
    """A source that lists more fails, and nothing is changed."""
    delete_after: Duration = 86_400
    """Where more than half of the documents are missing at once, so long are they kept."""

    @field_validator("tenant")
    @classmethod
    def _check_tenant(cls, value: str) -> str:
        _checked(lambda: tenancy.check_tenant(value))
        return value

    @field_validator("metadata")
    @classmethod
    def _check_metadata(cls, value: dict[str, Any]) -> dict[str, Any]:
        _checked(lambda: document_metadata.check(value))
        return value

    @field_validator("access")
    @classmethod
    def _check_access(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        _checked(lambda: access_tags.check(value or (), of="access"))
        return value

    @field_validator("include", "exclude")
    @classmethod
    def _check_patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        GitIgnoreSpec.from_lines(value)
        return value

    @property
    def digest(self) -> str:
        """Of all of the settings."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def qualified_collection(self) -> str:
        """The name by which its collection is kept."""
        with tenancy.serving(self.tenant):
            return tenancy.qualified(self.collection)


class PathSettings(SourceSettings):
    """A folder on a disk of the ingester."""

    path: Path

    @field_validator("path")
    @classmethod
    def _check_path(cls, value: Path) -> Path:
        if not value.is_absolute():
            raise ValueError(f"{value} is relative; write an absolute path")
        return value


class FolderSettings(PathSettings):
    """The files of a folder."""

    kind: Literal["folder"]


class MaildirSettings(PathSettings):
    """The messages of a maildir and of its subfolders."""

    kind: Literal["maildir"]


class GitSettings(SourceSettings):
    """A branch or tag of a git repository."""

    kind: Literal["git"]
    url: str = Field(max_length=2000)
    """`https://...`, or the absolute path of a repository on this machine."""
    ref: str = Field(default="HEAD", min_length=1, max_length=250)
    """A branch or tag; HEAD for the default branch."""
    username: str = ""
    password_file: Path | None = None
    """File that holds the password or token."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        if not value.startswith(("https://", "http://", "/")):
            raise ValueError("write https://..., or the absolute path of a repository")
        if value.startswith("http") and urlsplit(value).username:
            raise ValueError("the URL holds credentials; use username and password_file")
        return value


class PostgresqlSettings(SourceSettings):
    """The rows of a query."""

    kind: Literal["postgresql"]
    url: str = Field(max_length=2000)
    """`postgresql://user@host:5432/database`; `?sslmode=verify-full` checks the certificate."""
    password_file: Path | None = None
    """File that holds the password."""
    query: str = Field(min_length=1, max_length=20_000)
    """A SELECT, run in read-only transactions."""
    key: str = Field(min_length=1, max_length=63)
    """Column whose value tells rows apart."""
    text: Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1, max_length=16)]
    """Column of the text, or several, joined by blank lines. The others become metadata."""
    title: str = Field(default="", max_length=63)
    """Column of the title."""
    media_type: TextFormat = "text/plain"
    """Format of the text: Markdown and HTML keep their headings, tables and code."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("postgresql", "postgres"):
            raise ValueError("write postgresql://user@host:5432/database")
        if parts.password or "password" in parse_qs(parts.query):
            raise ValueError("the URL holds a password; use password_file")
        return value

    @field_validator("query")
    @classmethod
    def _end_query(cls, value: str) -> str:
        return value.strip().rstrip(";")

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the query must have."""
        return tuple(filter(None, (self.key, *self.text, self.title)))


class S3Settings(SourceSettings):
    """The objects of a bucket, of Amazon S3 or of what speaks its protocol."""

    kind: Literal["s3"]
    url: str = Field(max_length=2000)
    """`s3://bucket/prefix`; the prefix ends with a whole name."""
    endpoint: str = Field(default="", max_length=2000)
    """`https://...` of another service than Amazon's."""
    region: str = Field(default="us-east-1", min_length=1, max_length=63)
    access_key_id: str = ""
    """Empty: credentials of the ingester's environment, pod or instance."""
    secret_access_key_file: Path | None = None
    """File that holds the secret access key."""
    anonymous: bool = False
    """True reads a public bucket, without credentials."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme != "s3" or not parts.netloc or parts.username or parts.query:
            raise ValueError("write s3://bucket/prefix")
        return value

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("https", "http") or not parts.hostname):
            raise ValueError("write https://host:port")
        if parts.username:
            raise ValueError("the URL holds credentials; use access_key_id")
        return value

    @model_validator(mode="after")
    def _check_credentials(self) -> S3Settings:
        if bool(self.access_key_id) != (self.secret_access_key_file is not None):
            raise ValueError("access_key_id and secret_access_key_file go together")
        if self.anonymous and self.access_key_id:
            raise ValueError("anonymous and access_key_id exclude each other")
        return self

    @property
    def bucket(self) -> str:
        """Name of the bucket."""
        return urlsplit(self.url).netloc

    @property
    def prefix(self) -> str:
        """What the keys of all documents begin with: empty, or ending in a slash."""
        path = self.url.removeprefix(f"s3://{self.bucket}").strip("/")
        return f"{path}/" if path else ""


class WebSettings(SourceSettings):
    """Pages that a document of a site names."""

    url: str = Field(max_length=2000)
    hosts: tuple[str, ...] = ()
    """Hosts that pages are fetched from (`*.example.com` for those below one); empty: that of
    `url`."""
    networks: tuple[IPvAnyNetwork, ...] = ()
    """Networks that may be reached although they are not public: `10.1.0.0/16`."""
    ports: tuple[int, ...] = (80, 443)

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        if not value.startswith(("https://", "http://")) or not urlsplit(value).hostname:
            raise ValueError("write https://host/path")
        return value

    @property
    def policy(self) -> UrlPolicy:
        """Hosts, networks and ports that pages may be fetched from."""
        hosts = self.hosts or (urlsplit(self.url).hostname or "",)
        return UrlPolicy(hosts, map(str, self.networks), self.ports, names=_URL_SETTINGS)


class SitemapSettings(WebSettings):
    """The pages of a sitemap, or of an index of sitemaps."""

    kind: Literal["sitemap"]


class FeedSettings(WebSettings):
    """The pages of an RSS or Atom feed. A page stays when its entry leaves the feed."""

    kind: Literal["feed"]


_URL_SETTINGS: Final = SettingNames(
    hosts="hosts of the source",
    networks="networks of the source",
    max_bytes="RAGLAN_INGESTER_MAX_DOCUMENT_BYTES",
    timeout="no setting",
)
AnySource = Annotated[
    FolderSettings
    | MaildirSettings
    | GitSettings
    | PostgresqlSettings
    | S3Settings
    | SitemapSettings
    | FeedSettings,
    Field(discriminator="kind"),
]
_SOURCES: Final[TypeAdapter[AnySource]] = TypeAdapter(AnySource)


class _File(BaseModel):
    """The file as a whole; its entries are checked one by one."""

    model_config = ConfigDict(extra="forbid")

    sources: list[dict[str, Any]] = Field(max_length=_MAX_SOURCES)

    @model_validator(mode="before")
    @classmethod
    def _take_empty(cls, value: object) -> object:
        return {"sources": []} if value is None else value


def load(path: Path) -> dict[str, AnySource]:
    """Read the sources file.

    Returns:
        The sources by name.

    Raises:
        InvalidInput: it cannot be read or used; one line says where and why.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from None
    if len(data) > _MAX_FILE_BYTES:
        raise InvalidInput(f"{path} is larger than {_MAX_FILE_BYTES:,} bytes, the limit.")
    return parse(data, str(path))


def parse(data: bytes, path: str) -> dict[str, AnySource]:
    """Check the text of a sources file; `path` names it in errors. Raises InvalidInput."""
    try:
        file = _File.model_validate(yaml.safe_load(data))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InvalidInput(f"{path}{where}: this is not YAML.") from None
    except ValidationError as error:
        raise InvalidInput(f"{path}: {first_problem(error)}.") from None
    found: dict[str, AnySource] = {}
    for number, entry in enumerate(file.sources, 1):
        name = entry.get("name")
        shown = shortened(name) if isinstance(name, str) else f"number {number}"
        try:
            source = _SOURCES.validate_python(entry)
        except ValidationError as error:
            raise InvalidInput(f"{path}, source {shown}: {first_problem(error)}.") from None
        if source.name in found:
            raise InvalidInput(f"{path}: two sources are called {shown}; names must differ.")
        found[source.name] = source
    return found


def first_problem(error: ValidationError) -> str:
    """Return the first problem as `field: what is wrong`."""
    # Without the value, which may be a password.
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ").removesuffix(".")
    return f"{field}: {message}" if field else message


def _checked(check: Callable[[], object]) -> None:
    try:
        check()
    except RaglanError as error:
        raise ValueError(error.message) from None


def metadata_of(source: SourceSettings) -> Mapping[str, Any]:
    """Return what every document of a source has as metadata."""
    return {**source.metadata, "source": source.name}
