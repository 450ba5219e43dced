"""Progress of a running job by stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

STAGES: Final = ("parse", "chunk", "embed", "index")
"""In the order of the work. Parse and chunk count documents, embed and index count chunks."""


@dataclass(slots=True)
class Progress:
    """Totals of chunks grow as documents are parsed; they are unknown before."""

    done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))
    total: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))

    @classmethod
    def resumed(cls, *, documents: int, ended: int, chunks: int) -> Progress:
        """Restore the progress of a job with `ended` settled documents and `chunks` chunks."""
        progress = cls()
        for stage in ("parse", "chunk"):
            progress.done[stage], progress.total[stage] = ended, documents
        for stage in ("embed", "index"):
            progress.done[stage] = progress.total[stage] = chunks
        return progress

    def skipped(self) -> None:
        """A document needs no work."""
        self.done["parse"] += 1
        self.done["chunk"] += 1

    def cut(self, chunks: int) -> None:
        """A document was parsed and cut."""
        self.skipped()
        self.total["embed"] += chunks
        self.total["index"] += chunks

    def embedded(self, chunks: int) -> None:
        """Of a batch that is refused in the end, the count is taken back as a negative one."""
        self.done["embed"] += chunks

    def indexed(self, chunks: int) -> None:
        """Count indexed chunks."""
        self.done["index"] += chunks

    def lost(self, chunks: int, *, embedded: int = 0) -> None:
        """A document that was cut will not be indexed."""
        self.total["embed"] -= chunks - embedded
        self.total["index"] -= chunks

    def as_dict(self) -> dict[str, list[int]]:
        """Return [done, total] by stage."""
        return {stage: [self.done[stage], self.total[stage]] for stage in STAGES}
