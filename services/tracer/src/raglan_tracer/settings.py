"""Settings of the tracer."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, NonNegativeInt, PositiveInt
from raglan.settings import AddressList, GrpcSettings, default_data_dir


class TracerSettings(GrpcSettings, env_prefix="RAGLAN_TRACER_"):
    """Retention of traces, services to collect spans from, and the OTLP receiver.

    The former names of `DATA_DIR`, `TRACES_*`, `TRACE_MAX_SPANS` and `OTLP_*`, which begin with
    RAGLAN_GATEWAY_, are read too.
    """

    port: int = Field(default=7106, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""

    embedder_address: AddressList = "127.0.0.1:7101"
    """Embedders: addresses with commas (host:port), names that are resolved again every 5 s (each
    stands for all of its addresses), or @ and a file that is read again every second. All of them
    are asked for the spans of a trace that is kept."""

    retriever_address: AddressList = "127.0.0.1:7102"
    """Retrievers, as for the embedders."""

    reranker_address: AddressList = "127.0.0.1:7103"
    """Rerankers, as for the embedders."""

    generator_address: AddressList = "127.0.0.1:7104"
    """Generators, as for the embedders."""

    ingester_address: AddressList = "127.0.0.1:7105"
    """The ingester."""

    data_dir: Path = Field(default_factory=lambda: default_data_dir() / "tracer")
    """Folder of stored traces, readable by this user alone."""

    traces_kept: NonNegativeInt = 10_000
    """Traces that are kept, the newest ones. With 0, `/v1/traces/{id}` shows recent ones only."""

    traces_share: float = Field(default=0.05, ge=0, le=1)
    """Of the traces of requests that went well, how many are kept: 0.05 is one in twenty. Those of
    errors, of degraded, hedged, retried and slow requests are kept beside them."""

    traces_max_bytes: PositiveInt = 256 * 1024 * 1024
    """Most that the file of traces holds, packed."""

    trace_max_spans: PositiveInt = 2_000
    """Most spans that are kept of one trace; the rest is counted."""

    otlp_host: str = "127.0.0.1"
    """Address at which spans of others are received (OTLP over HTTP, `POST /v1/traces`). Loopback
    unless told: whoever reaches it can write traces."""

    otlp_port: int = Field(default=4319, ge=-1, le=65535)
    """Port for that; 0 takes a free one, -1 receives none. `raglan up` takes another free one where
    4319 is in use, and shows it. 4318 is left to a collector that runs beside the mesh."""

    allowed_hosts: str = ""
    """Names under which the OTLP receiver is reached, with commas, without port; `*` for any.
    Empty: on loopback `localhost` only, elsewhere any. An IP address needs no entry."""
