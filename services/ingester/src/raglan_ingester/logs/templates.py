"""Templates of log messages: what stays the same when numbers and names change."""

from __future__ import annotations

import re
from typing import Final

from drain3.drain import Drain, LogCluster

_PARAMETER: Final = "<*>"
_MASKED: Final = re.compile(
    r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"  # UUID
    r"|\b(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?\b"  # address
    r"|\b0x[0-9a-fA-F]+\b"
    r"|\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b"  # hash
    r"|\"[^\"]*\"|'[^']*'"
    r"|(?<![\w/])/[\w./-]+"  # path
    r"|(?<![A-Za-z_])[-+]?\d+(?:[.,:]\d+)*"
)
_SIMILARITY: Final = 0.5
_MOST_TEMPLATES: Final = 1_000
"""Of one log; the least recently used are given up beyond it."""
_MOST_KNOWN: Final = 10_000


class TemplateMiner:
    """Learns the templates of one log (Drain, He et al., ICWS 2017)."""

    def __init__(self) -> None:
        self._drain = Drain(
            depth=4, sim_th=_SIMILARITY, max_clusters=_MOST_TEMPLATES, param_str=_PARAMETER
        )

        self._known: dict[str, LogCluster] = {}
        """By masked message: one of parameters alone is similar to nothing, itself included."""

    def add(self, message: str) -> LogCluster:
        """Learn from a message; the cluster's template may become more general afterwards."""
        masked = _MASKED.sub(_PARAMETER, message)
        known = self._known.get(masked)
        if known is None:
            known, _ = self._drain.add_log_message(masked)
            if len(self._known) == _MOST_KNOWN:
                self._known.clear()
            self._known[masked] = known
        return known
