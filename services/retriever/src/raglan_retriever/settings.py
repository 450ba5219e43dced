"""Settings of the retriever."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    model_validator,
)
from raglan.fusion import Method
from raglan.settings import GrpcSettings, HttpUrl, default_data_dir
from raglan.terms import language_code

Quantization = Literal["none", "scalar", "binary", "turbo"]
StrictLimit = Literal[
    "max_points_count",
    "max_collection_vector_size_bytes",
    "max_collection_payload_size_bytes",
    "read_rate_limit",
    "write_rate_limit",
    "filter_max_conditions",
]
"""Those of Qdrant's strict mode that no search of the retriever needs to exceed."""


class RetrieverSettings(GrpcSettings, env_prefix="RAGLAN_RETRIEVER_"):
    """Settings of the index and of the fusion of a search's two legs."""

    port: int = Field(default=7102, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""

    store: Literal["edge", "qdrant", "null"] = "edge"
    """edge: in this process, on disk. qdrant: a Qdrant server or cluster. null finds the same
    passages in every collection and stores nothing: for measuring the mesh."""

    data_dir: Path = Field(default_factory=lambda: default_data_dir() / "retriever")
    """Folder of the edge store. One retriever process may use it at a time."""

    qdrant_url: HttpUrl = "http://127.0.0.1:6333"
    """Where the qdrant store finds its server."""

    qdrant_api_key: SecretStr | None = None
    """Key sent to the Qdrant server, if it wants one."""

    qdrant_timeout_s: PositiveFloat = 10
    """Longest wait for one answer of the Qdrant server."""

    qdrant_shard_number: PositiveInt | None = None
    """Shards of a new collection in Qdrant, over which a cluster spreads it; empty: as many as the
    cluster has nodes. Outside of Qdrant Cloud the number cannot be changed later, and shards beyond
    the number of nodes can be moved to nodes that are added."""

    qdrant_replication_factor: PositiveInt | None = None
    """Copies of each shard of a new collection in Qdrant; empty: as Qdrant is configured, 1 unless
    you changed it. With 2, searches go on while a node is down."""

    qdrant_write_consistency_factor: PositiveInt | None = None
    """Copies that must have taken a write before it is acknowledged; empty: as Qdrant is
    configured. With all copies, an acknowledged write survives the loss of a disk, and writes fail
    while a node is down."""

    qdrant_vectors_on_disk: bool = False
    """Read the vectors of a new collection from Qdrant's disk as they are needed, instead of
    loading them into memory: with quantization, memory then holds the small vectors alone."""

    qdrant_payload_on_disk: bool = True
    """Read texts and metadata of a new collection from Qdrant's disk as they are needed; false
    loads them into memory."""

    qdrant_quantization: Quantization = "none"
    """How Qdrant compresses the vectors of a new collection in memory: scalar to a quarter, turbo
    to an eighth, binary to a 32nd, which suits vectors of 1,024 and more dimensions. The best
    candidates are compared by their exact vectors."""

    qdrant_strict_mode: dict[StrictLimit, PositiveInt] = Field(default_factory=dict)
    """Limits that Qdrant holds a new collection to, as a JSON object by Qdrant's names:
    `max_points_count`, `max_collection_vector_size_bytes`, `max_collection_payload_size_bytes`,
    `read_rate_limit` and `write_rate_limit` (a minute and replica), `filter_max_conditions`. Past a
    size uploads get status 507, past a rate calls are refused until later."""

    language: Annotated[str, AfterValidator(language_code)] = "en"
    """Language (ISO 639-1) of texts and queries in new collections where detection is uncertain: it
    decides stop words and stemmer."""

    abbreviations: bool = True
    """Search also by the other form of an abbreviation that documents of the collection define:
    "MSCs" finds "mesenchymal stem cells", and the other way round."""

    fusion: Method = "dbsf"
    """How dense and lexical scores become one, where a request does not say."""

    dense_weight: NonNegativeFloat = 1
    """Weight of the dense leg, where a request does not say."""

    lexical_weight: NonNegativeFloat = 1
    """Weight of the lexical leg, where a request does not say."""

    min_candidates: PositiveInt = 200
    """Each leg of a hybrid search finds at least this many chunks before the two are fused."""

    max_limit: PositiveInt = 1000
    """Most passages a search may ask for."""

    max_searched_collections: PositiveInt = 16
    """Most collections that one search may name."""

    max_upsert_chunks: PositiveInt = 1000
    """Most chunks one upsert may bring."""

    search_threads: PositiveInt = 4
    """Searches of the edge store that run at once in one collection; there is one more thread, for
    the others. They do not hold the interpreter's lock."""

    max_waiting: PositiveInt = 256
    """Reads that may wait for a thread of the edge store; more are refused, to come back later."""

    optimize_after_chunks: PositiveInt = 20_000
    """The edge store builds its vector index once this many chunks are outside of it."""

    index_recall: float = Field(default=0.95, ge=0.8, le=0.999)
    """Recall@10 against an exact search that the edge store's vector indexes are built and searched
    for, where a collection does not say."""

    index_memory_mb: PositiveInt = 1024
    """Memory, in MB, that one collection of the edge store may take for its vector index, then for
    its vectors, then for its texts. What does not fit stays on the disk and is read when needed."""

    min_free_mb: NonNegativeInt = 256
    """Space, in MB, that the edge store leaves free on its disk: with less, nothing more is written
    and callers get status 507, while searches go on. Deletions may use three quarters of it."""

    max_collections: PositiveInt = 1000
    """Most collections of the edge store."""

    max_open_collections: PositiveInt = 16
    """Collections of the edge store that are held open, each with files in memory and threads. A
    further one is opened when it is used, which takes 20 to 200 ms, and the one that was unused for
    the longest time is closed."""

    close_unused_after_s: PositiveFloat = 900
    """Seconds after which a collection of the edge store that nobody uses is closed."""

    @model_validator(mode="after")
    def _check_qdrant(self) -> Self:
        copies, written = self.qdrant_replication_factor, self.qdrant_write_consistency_factor
        if copies is not None and written is not None and written > copies:
            raise ValueError(
                f"qdrant_write_consistency_factor is {written}, but there are "
                f"{copies} copies (qdrant_replication_factor)"
            )
        return self
