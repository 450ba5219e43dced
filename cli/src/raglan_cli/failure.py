"""Failure of a command: a sentence for the user, an exit status for scripts."""

from __future__ import annotations

from typing import Any, Final

FAILED: Final = 1
"""The command was understood and did not succeed."""

USAGE: Final = 2
"""The command can never succeed as it was typed."""

INTERRUPTED: Final = 130
"""Ctrl-C, as shells say it."""


class Failure(Exception):
    """Ends the command. The message is shown as it is, without a traceback."""

    def __init__(
        self,
        message: str,
        *,
        status: int = FAILED,
        envelope: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self._envelope = envelope

    @property
    def document(self) -> dict[str, Any]:
        """The document that `--json` prints: the gateway's envelope, or one of the same form."""
        kind = "invalid_input" if self.status == USAGE else "failed"
        return self._envelope or {"error": {"type": kind, "message": self.message}}


class UsageFailure(Failure):
    """A wrong argument, found after typer had accepted the command line."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=USAGE)
