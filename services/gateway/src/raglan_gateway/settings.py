"""Settings of the gateway."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    field_validator,
    model_validator,
)
from raglan.cross_origin import is_loopback
from raglan.database.urls import check_url
from raglan.settings import AddressList, ServiceSettings, default_data_dir
from raglan.settings import listed as listed

from raglan_gateway.shared import redis_url

MIN_ADMIN_KEY_CHARS: Final = 32
ASYMMETRIC: Final = frozenset(
    {
        *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
        *("ES256", "ES384", "ES512", "EdDSA"),
    }
)
"""Algorithms that may be allowed: with the others, whoever checks a token can make one."""


class GatewaySettings(ServiceSettings, env_prefix="RAGLAN_GATEWAY_"):
    """Addresses of the services, budgets of the stages and limits of requests."""

    port: int = Field(default=8080, ge=0, le=65535)
    """Port of the REST API."""

    embedder_address: AddressList = "127.0.0.1:7101"
    """Embedders: addresses with commas (host:port), names that are resolved again every 5 s (each
    stands for all of its addresses), or @ and a file that is read again every second."""

    retriever_address: AddressList = "127.0.0.1:7102"
    """Retrievers, as for the embedders."""

    reranker_address: AddressList = "127.0.0.1:7103"
    """Rerankers, as for the embedders."""

    generator_address: AddressList = "127.0.0.1:7104"
    """Generators, as for the embedders."""

    generators: str = ""
    """More generators by name, for profiles: `small=host:7104,large=host2:7104`. Addresses after
    the first of a name have none of their own: `large=a:7104,b:7104`."""

    profiles_file: Path | None = None
    """TOML file with profiles: named settings of queries, and which collection uses which."""

    ingester_address: AddressList = "127.0.0.1:7105"
    """The ingester."""

    tracer_address: AddressList = ""
    """The tracer; empty for none: traces are not kept then, and `/v1/traces` is not supported."""

    allowed_hosts: str = ""
    """Names under which the gateway is served, with commas, without port; `*` for any. Empty: on
    loopback `localhost` only, so that no web page reaches it through a name of its own; elsewhere
    any. An IP address needs no entry."""

    cors_origins: str = ""
    """Origins of web pages that may use the API, with commas, such as `https://app.example.com`;
    `*` for all. A browser's requests from other sites are refused where they could change
    something, and it keeps their replies from the page."""

    trusted_proxies: str = ""
    """Addresses and networks of the proxies before the gateway, with commas, such as `10.0.0.0/8`:
    their `X-Forwarded-For` names the caller whose rate is limited. Empty ignores the header,
    because anybody can send it."""

    data_dir: Path = Field(default_factory=lambda: default_data_dir() / "gateway")
    """Folder of the SQLite file, unless `database_url` is set, and of files that wait for a vector
    store (`/v1/files`). Gateways that share it, on one machine or a network's disk, share them."""

    database_url: SecretStr = SecretStr("")
    """Keys, audit log, sessions and feedback: a SQLAlchemy URL (`postgresql://...`,
    `sqlite:///...`), which may be the ingester's. Empty: `gateway.sqlite` in `data_dir`, which
    gateways of one machine can share."""

    database_password: SecretStr = SecretStr("")
    """Password of that database, as a file of its own, say; `database_url` has none then."""

    max_files: PositiveInt = 10_000
    """Files of `/v1/files` that one tenant may keep."""

    max_files_mb: PositiveInt = 1_024
    """Megabytes of files of `/v1/files` that one tenant may keep."""

    admin_key: SecretStr = SecretStr("")
    """A key that may do everything, 32 characters or more, kept in no database: the first way in.
    Once it is set, every request needs a key."""

    anonymous: Literal["loopback", "allow"] = "loopback"
    """Addresses that need no key as long as there is none: loopback only, so that a gateway
    without keys refuses to start on another address; or `allow`, anywhere, for a network that is
    closed otherwise. Keys are required in any case from the first one on."""

    audit_entries: int = Field(default=100_000, ge=1_000, le=100_000_000)
    """Entries of the audit log that are kept; the oldest leave first."""

    oidc_issuer: str = ""
    """The issuer (`iss`) whose JSON Web Tokens are taken as keys; empty for none."""

    oidc_audience: str = ""
    """The audience (`aud`) that a token must name; required with `oidc_issuer`."""

    oidc_jwks_url: str = ""
    """URL of the issuer's key set, `https://...`, or `http://` on loopback; required with
    `oidc_issuer`. A key that the issuer withdraws is taken for 10 minutes more."""

    oidc_algorithms: str = "RS256,PS256,ES256,EdDSA"
    """Signatures that a token may have, with commas; only asymmetric ones can be allowed."""

    oidc_scopes_claim: str = "scope"
    """Claim with a token's scopes, `query`, `ingest` and `admin`: a list, or words with spaces."""

    oidc_tenant_claim: str = ""
    """Claim with a token's tenant, which every token must have then; empty for no tenants."""

    oidc_collections_claim: str = ""
    """Claim with the list of the collections that a token allows, which every token must have
    then; empty for all."""

    oidc_access_claim: str = ""
    """Claim with a token's access tags, a list or words with spaces: it reaches documents with one
    of them besides those without tags, and a token without the claim those without tags alone.
    Empty: admins reach every document, others those without tags."""

    default_collection: str = "default"
    """Made at start and searched when a request names none; empty makes none."""

    default_timeout_ms: PositiveInt = 30_000
    """Time a request gets when it does not say; from it follows one deadline for every stage."""

    max_timeout_ms: PositiveInt = 300_000
    """Longest `timeout_ms` that a request may ask for."""

    embed_budget_ms: PositiveInt = 1_000
    """Longest wait for the query's vector; after it the search is lexical only."""

    retrieve_budget_ms: PositiveInt = 5_000
    """Longest wait for the index; after it the request fails."""

    collection_budget_ms: PositiveInt = 2_000
    """Longest wait for one of several collections, at most half of the time that is left for the
    index; after it the others answer without it, and `degraded` names it."""

    rerank_budget_ms: PositiveInt = 1_000
    """Longest wait for the reranker; after it the fused order stands."""

    expand_budget_ms: PositiveInt = 500
    """Longest wait for the neighbours of passages; after it the passages stay as they are."""

    section_tokens: NonNegativeInt = 2_000
    """Tokens of the sections that passages of collections with the chunking strategy `parent` are
    joined to, in all; `expand_tokens` of a request replaces it."""

    max_expand_tokens: NonNegativeInt = 16_000
    """Largest `expand_tokens` of a request."""

    first_token_budget_ms: PositiveInt = 10_000
    """Longest wait for the first piece of an answer; after it the passages are quoted instead."""

    token_gap_budget_ms: PositiveInt = 5_000
    """Longest silence in the middle of an answer; after it the answer ends in an error."""

    cite_budget_ms: PositiveInt = 300
    """Longest wait for the vectors of an answer's sentences; after it words alone decide which of
    them their citations support."""

    strategy_budget_ms: PositiveInt = 3_000
    """Longest wait for the search texts that a language model writes for a question, where a
    profile or request names a `strategy`; after it the question is searched as it is."""

    rerank_candidates: NonNegativeInt = 20
    """Passages offered to the reranker; it scores as many as its own budget holds."""

    max_query_chars: PositiveInt = 8_000
    """Longest query, in characters."""

    small_talk: bool = True
    """Greetings, thanks and questions about the assistant are answered at once, without a search
    and without a model. False searches for them as for any other question."""

    max_history_turns: int = Field(default=100, ge=1, le=1000)
    """Most turns of a request's `history`; no more than the generator's `max_history_turns`."""

    max_history_chars: PositiveInt = 100_000
    """Longest `history`, all turns together, in characters."""

    keep_answers_s: NonNegativeFloat = 7 * 24 * 3600
    """Age in seconds at which answers, sessions and feedback are deleted; 0 keeps none, and
    `session_id` is refused."""

    max_kept_answers: PositiveInt = 10_000
    """Most answers that are kept of one caller; beyond it, the oldest are deleted."""

    max_kept_bytes: PositiveInt = 64 * 1024 * 1024
    """Most bytes of answers, compressed, that are kept of one caller."""

    max_sessions: int = Field(default=1_000, ge=1, le=1_000)
    """Most sessions of one caller; beyond it, those unused for longest are deleted."""

    max_top_k: int = Field(default=100, ge=1, le=1000)
    """Most passages a request may ask for."""

    max_request_bytes: PositiveInt = 1024 * 1024
    """Largest body of a request that uploads no documents."""

    max_upload_bytes: PositiveInt = 128 * 1024 * 1024
    """Largest body of a request that uploads documents."""

    max_upload_files: PositiveInt = 1_000
    """Most files in one multipart request."""

    max_upload_documents: PositiveInt = 10_000
    """Most documents in one JSON request."""

    url_hosts: str = ""
    """Hosts from which documents are fetched by URL, with commas, `*.example.com` for all below
    one; `*` for every host of the public internet. Empty fetches nothing."""

    url_networks: str = ""
    """Networks, with commas, from which documents are fetched although they are not public, such as
    `10.1.0.0/16` for a wiki; its hosts are in `url_hosts` too."""

    url_max_bytes: PositiveInt = 32 * 1024 * 1024
    """Largest document that is fetched."""

    url_timeout_s: PositiveFloat = 30
    """Time in which a fetched document has to be there, its redirects included."""

    rate_limit_per_minute: int = Field(default=0, ge=0, le=1_000_000)
    """Requests a minute that one caller may send to a group of routes (answer, search, read,
    write), a minute's worth of them at once; 0 for no limit. A key may have a limit of its own.
    With Redis all gateways count together, without it each counts for itself."""

    concurrent_per_caller: int = Field(default=0, ge=0, le=10_000)
    """Requests of one caller to a group of routes that may be in progress at once; 0 for no
    limit."""

    tokens_per_minute: int = Field(default=0, ge=0, le=10_000_000)
    """Tokens a minute that may be generated for one caller; 0 for no limit. They are charged when
    an answer ends, so one answer may exceed what is left; the next waits until that is paid."""

    stale_answer_s: NonNegativeFloat = 600
    """Oldest answer that is given again, and marked as such, while no retriever can be reached; 0
    keeps none. With Redis they are also kept there, with the passages they quote."""

    embedding_cache_s: NonNegativeFloat = 3_600
    """Seconds for which the vector of a query is kept; 0 keeps none."""

    evidence_cache_s: NonNegativeFloat = 1_800
    """Seconds for which the ranked passages of a query are kept, as long as their collections do
    not change; 0 keeps none."""

    answer_cache_s: NonNegativeFloat = 900
    """Seconds for which an answer is kept, as long as the collections that it rests on do not
    change; 0 keeps none."""

    semantic_cache_similarity: float = Field(default=0, ge=0, le=1)
    """Least cosine of two questions' vectors, from which on a cached answer of the one may be given
    to the other if they also have the same numbers, names, negations and other words that decide;
    0 gives none. English only. 0.9 suits the bundled model; another one needs its own."""

    semantic_cache_bytes: PositiveInt = 16 * 1024 * 1024
    """Memory of each gateway for the questions of cached answers, by which similar ones find them;
    the answers themselves are in the cache of answers."""

    cache_bytes: PositiveInt = 64 * 1024 * 1024
    """Memory of each gateway for these three caches. With Redis they are also kept there, for all
    gateways."""

    redis_url: SecretStr = SecretStr("")
    """Redis that several gateways share, `redis://[user:password@]host[:port][/database]` or
    `rediss://` for TLS; empty for none. When it is away, each gateway goes on by itself. Give it a
    memory limit and the policy `volatile-lru`."""

    redis_password: SecretStr = SecretStr("")
    """Password of that Redis, as a file of its own, say; `redis_url` has none then."""

    max_concurrent_requests: PositiveInt = 1_024
    """Requests in progress at once; more are refused with 503."""

    max_concurrent_uploads: PositiveInt = 64
    """Uploads in progress at once; more are refused with 503. They take no place of the other
    requests."""

    highest_priority: Literal["critical", "default", "batch"] = "critical"
    """Highest class that a request's X-Raglan-Priority may claim; a higher one counts as this."""

    heartbeat_s: PositiveFloat = 15
    """Silence on an event stream after which a comment is sent, so that proxies keep it open."""

    listen_fd: str = ""
    """Descriptors of listening sockets to serve on instead of host and port, with commas. A gateway
    that inherits its socket can be replaced without a refused connection; `raglan up` does so."""

    peers_file: Path | None = None
    """File with the own addresses of the gateways that share these sockets, a line each, by which
    `/metrics/targets` names all of them; `raglan up` keeps it."""

    keep_alive_s: PositiveFloat = 75
    """Idle time after which a connection is closed. Longer than clients keep theirs, so that none
    is closed while a request is in flight."""

    head_s: PositiveFloat = 30
    """Time in which the request line and the headers have to be there."""

    max_head_bytes: int = Field(default=32 * 1024, ge=1024)
    """Largest request line and headers, together."""

    body_s: PositiveFloat = 30
    """Time in which a request's body has to be there; an upload has to go on within it, at 500
    bytes a second or more."""

    slow_reader_s: PositiveFloat = 30
    """Time for which a client may read nothing of its reply; then it is disconnected and its calls
    are cancelled."""

    @field_validator("generators")
    @classmethod
    def _check_generators(cls, value: str) -> str:
        addresses_by_name(value)
        return value

    @field_validator("trusted_proxies", "url_networks")
    @classmethod
    def _check_proxies(cls, value: str) -> str:
        for proxy in listed(value):
            ipaddress.ip_network(proxy)
        return value

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: str) -> str:
        for origin in listed(value):
            parts = urlsplit(origin)
            if origin != "*" and origin != f"{parts.scheme}://{parts.netloc}":
                raise ValueError(f"{origin!r} is no origin; write scheme://host[:port]")
        return value

    @model_validator(mode="after")
    def _check_redis_url(self) -> GatewaySettings:
        # Of the whole, not of the field: what a field refuses is shown.
        if self.redis_url.get_secret_value():
            try:
                redis_url.check(self.redis_url.get_secret_value())
                self.redis_login()
            except ValueError as error:
                raise ValueError(f"RAGLAN_GATEWAY_REDIS_URL is {error}") from None
        elif self.redis_password.get_secret_value():
            raise ValueError("RAGLAN_GATEWAY_REDIS_PASSWORD needs RAGLAN_GATEWAY_REDIS_URL")
        return self

    @model_validator(mode="after")
    def _check_access(self) -> GatewaySettings:
        # Of the whole, not of the field: what a field refuses is shown.
        key = self.admin_key.get_secret_value()
        if key and (len(key) < MIN_ADMIN_KEY_CHARS or not key.isascii() or not key.isprintable()):
            raise ValueError(
                f"RAGLAN_GATEWAY_ADMIN_KEY has {len(key)} characters; it needs "
                f"{MIN_ADMIN_KEY_CHARS} printable ones of ASCII or more (openssl rand -hex 32)"
            )
        if " " in key or key.startswith("rgl_"):
            raise ValueError("RAGLAN_GATEWAY_ADMIN_KEY has a space, or begins with rgl_")
        if self.oidc_issuer:
            self._check_jwt()
        return self

    def _check_jwt(self) -> None:
        if not (self.oidc_audience and self.oidc_jwks_url):
            raise ValueError(
                "RAGLAN_GATEWAY_OIDC_ISSUER needs RAGLAN_GATEWAY_OIDC_AUDIENCE and "
                "RAGLAN_GATEWAY_OIDC_JWKS_URL"
            )
        url = urlsplit(self.oidc_jwks_url)
        if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.hostname or "")):
            raise ValueError(
                f"RAGLAN_GATEWAY_OIDC_JWKS_URL is {self.oidc_jwks_url}; give an https URL"
            )
        named = listed(self.oidc_algorithms)
        if not named or (unknown := set(named) - ASYMMETRIC):
            wrong = ", ".join(sorted(unknown)) if named else "empty"
            raise ValueError(
                f"RAGLAN_GATEWAY_OIDC_ALGORITHMS is {wrong}; allowed are "
                f"{', '.join(sorted(ASYMMETRIC))}"
            )

    @model_validator(mode="after")
    def _check_database_url(self) -> GatewaySettings:
        # Of the whole, not of the field: what a field refuses is shown.
        check_url(
            "RAGLAN_GATEWAY_",
            self.database_url.get_secret_value(),
            self.database_password.get_secret_value(),
        )
        return self

    def redis_login(self) -> SecretStr:
        """The URL of Redis with its password; empty for none."""
        if not (password := self.redis_password.get_secret_value()):
            return self.redis_url
        return SecretStr(redis_url.with_password(self.redis_url.get_secret_value(), password))


_GENERATOR_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")


def addresses_by_name(value: str) -> dict[str, str]:
    """Name -> addresses, of `small=host:7104,large=a:7104,b:7104`.

    Raises:
        ValueError: a name is missing, wrong, or given twice.
    """
    found: dict[str, list[str]] = {}
    name = ""
    for part in listed(value):
        given, separator, address = part.rpartition("=")
        if separator:
            name = given.strip()
            if not _GENERATOR_NAME.fullmatch(name) or name == "default" or name in found:
                raise ValueError(
                    f"{name!r} is no new name of generators; write small=host:7104,large=host2:7104"
                )
        if not name or not address.strip():
            raise ValueError(f"{part!r} has no name; write small=host:7104,large=host2:7104")
        found.setdefault(name, []).append(address.strip())
    return {name: ",".join(addresses) for name, addresses in found.items()}
