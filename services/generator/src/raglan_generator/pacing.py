"""Shortest time between two messages of one answer, by the number of answers being written.

A message costs generator and gateway a quarter of a millisecond each, however much text it holds.
A few answers send each token as it comes. Many share a rate of messages: the tokens that the model
writes between two of them travel together.
"""

from __future__ import annotations

from typing import Final

MESSAGES_PER_S: Final = 500
"""Of all answers together: a quarter of a core here, and as much in the gateway."""
_SHORTEST_S: Final = 0.01
"""A timer for less would cost about what it saves."""
_LONGEST_S: Final = 0.2


def pause_s(answers: int) -> float:
    """Return the time between two messages of one answer, in seconds.

    Args:
        answers: How many are being written now, this one included.

    Returns:
        0 where each token leaves as it comes, otherwise 0.01 to 0.2.
    """
    shared_s = answers / MESSAGES_PER_S
    return min(shared_s, _LONGEST_S) if shared_s >= _SHORTEST_S else 0.0
