"""Token pooling: fewer vectors for late interaction, each the mean of several.

Clavié, Chaffin and Adams, "Reducing the Footprint of Multi-Vector Retrieval with Minimal
Performance Impact via Token Pooling" (2024): here their sequential pooling.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from raglan.encoders.heads import unit_rows
from raglan.errors import InvalidInput

MAX_POOLING: Final = 16


def check_pooling(tokens: int) -> int:
    """Return the number of tokens to pool, 1 for none.

    Raises:
        InvalidInput: it is out of range.
    """
    if tokens > MAX_POOLING:
        raise InvalidInput(f"token_pooling is {tokens}; it must be 0 to {MAX_POOLING}.")
    return max(1, tokens)


def pool_tokens(vectors: NDArray[Any], tokens: int) -> NDArray[Any]:
    """Return the L2-normalised means of each `tokens` vectors in a row.

    Args:
        vectors: (n, dimension), rows L2-normalised.
        tokens: 1 returns them as they are.

    Returns:
        float32 of shape (ceil(n / tokens), dimension); the last mean may be of fewer.
    """
    if tokens == 1:
        return vectors
    # The length of a sum differs from that of the mean by a factor that the normalisation removes.
    return unit_rows(np.add.reduceat(vectors, np.arange(0, len(vectors), tokens), axis=0))
