"""Settings of new collections of a Qdrant server: shards, replicas, memory, limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from qdrant_client import models

from raglan_retriever.chunks import DOCUMENT_ID, NUMBERS, TERMS
from raglan_retriever.collection import Collection
from raglan_retriever.settings import Quantization, StrictLimit
from raglan_retriever.stores import qdrant_vectors
from raglan_retriever.stores.store import DENSE
from raglan_retriever.validity import FROM, TO

_PINNED: Final = models.Memory.PINNED
_QUANTIZATIONS: Final[Mapping[Quantization, models.QuantizationConfig | None]] = {
    "none": None,
    "scalar": models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, memory=_PINNED)
    ),
    "binary": models.BinaryQuantization(binary=models.BinaryQuantizationConfig(memory=_PINNED)),
    "turbo": models.TurboQuantization(
        turbo=models.TurboQuantQuantizationConfig(
            bits=models.TurboQuantBitSize.BITS4, memory=_PINNED
        )
    ),
}

_OVERSAMPLING: Final[Mapping[Quantization, float]] = {"scalar": 1.5, "turbo": 1.5, "binary": 3.0}
"""Candidates by the quantized vectors a hit, which the exact vectors then put in order."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Settings of new collections, by Qdrant's names. None leaves a value to the server."""

    shard_number: int | None = None
    replication_factor: int | None = None
    write_consistency_factor: int | None = None
    vectors_on_disk: bool = False
    payload_on_disk: bool = True
    quantization: Quantization = "none"
    strict_mode: Mapping[StrictLimit, int] = field(default_factory=dict)
    """Limits by Qdrant's names; with none strict mode is left to the server."""

    def collection(self, held: Collection) -> dict[str, Any]:
        """Return the arguments that create a collection of chunks."""
        vectors = qdrant_vectors.dense_params(held.model.dimension, held.further_vectors)
        vectors[DENSE] = vectors[DENSE].model_copy(
            update={
                "memory": models.Memory.COLD if self.vectors_on_disk else None,
                "quantization_config": _QUANTIZATIONS[self.quantization],
            }
        )
        strict_mode = models.StrictModeConfig.model_validate({"enabled": True, **self.strict_mode})
        in_memory = models.PayloadStorageParams(memory=models.Memory.CACHED)
        return {
            **self.replication(),
            "shard_number": self.shard_number,
            "vectors_config": vectors,
            "sparse_vectors_config": qdrant_vectors.sparse_params(held.further_vectors),
            "payload": None if self.payload_on_disk else in_memory,
            "strict_mode_config": strict_mode if self.strict_mode else None,
        }

    def replication(self) -> dict[str, Any]:
        """Return the arguments that every collection is created with."""
        return {
            "replication_factor": self.replication_factor,
            "write_consistency_factor": self.write_consistency_factor,
        }

    def search_params(self) -> models.SearchParams | None:
        """Return the parameters of a dense search; collections without quantization ignore them."""
        if self.quantization == "none":
            return None
        return models.SearchParams(
            quantization=models.QuantizationSearchParams(
                rescore=True, oversampling=_OVERSAMPLING[self.quantization]
            )
        )


def payload_indexes(
    held: Collection,
) -> dict[str, models.PayloadSchemaType | models.KeywordIndexParams]:
    """Return the indexes of a collection of chunks.

    A tenant has collections of its own, so that an index of tenants would group nothing. Chunks of
    one document are read together: neighbours, whole documents. So they lie side by side.
    """
    together = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
    times = (FROM, TO) if held.versions else ()
    return {
        DOCUMENT_ID: together,
        TERMS: models.PayloadSchemaType.KEYWORD,
        **{f'{NUMBERS}."{key}"': models.PayloadSchemaType.FLOAT for key in times},
    }
