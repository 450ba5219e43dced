"""Latency model: seconds as a function of tokens, learnt from past batches."""

from __future__ import annotations

from typing import Final

_FORGET: Final = 0.97
"""Weight kept by what was seen before, at each observation: about the last 30 count."""

_FORGET_PESSIMISM: Final = 0.7
"""The same where an observation took less than half of what was expected. An estimate that is too
slow lets little run, and so has little to learn from; and nothing runs faster than it can."""

_PRIOR_TOKENS: Final = (64.0, 2048.0)

_STALL: Final = 4.0
"""An observation counts as at most this many times what was expected: one stall of the machine is
not its speed. What stays slow is believed after a few."""


class LatencyModel:
    """`seconds = a * tokens + b` by least squares that forgets. Pure: no clock inside.

    It starts from two observations that lie on the given line, so that it is never undetermined and
    yields quickly to what it sees.
    """

    def __init__(self, *, seconds_per_token: float, overhead_s: float) -> None:
        """The line assumed before the first measurement; choose a slow one."""
        self._weight = self._x = self._y = self._xx = self._xy = 0.0
        for tokens in _PRIOR_TOKENS:
            self._add(tokens, seconds_per_token * tokens + overhead_s)
        self._line = self._fit()

    def observe(self, tokens: int, seconds: float) -> None:
        """Record a batch of `tokens` that ran for `seconds`."""
        expected = self.seconds(tokens)
        seconds = min(seconds, _STALL * expected)
        kept = _FORGET_PESSIMISM if seconds < expected / 2 else _FORGET
        self._weight *= kept
        self._x *= kept
        self._y *= kept
        self._xx *= kept
        self._xy *= kept
        self._add(float(tokens), seconds)
        self._line = self._fit()

    def seconds(self, tokens: float) -> float:
        """Estimate seconds for `tokens`. Never negative, never falling with more tokens."""
        slope, intercept = self._line
        return slope * tokens + intercept

    def tokens_within(self, seconds: float) -> int:
        """The most tokens that will take at most `seconds`; 0 when not even one."""
        slope, intercept = self._line
        if seconds <= intercept:
            return 0
        return int(min((seconds - intercept) / max(slope, 1e-12), 2**31))

    @property
    def seconds_per_token(self) -> float:
        """Of the batches as they have been: overhead included."""
        return self._y / self._x

    @property
    def overhead_tokens(self) -> float:
        """Tokens that take as long as the fixed part of a batch."""
        slope, intercept = self._line
        return intercept / max(slope, 1e-12)

    def _add(self, x: float, y: float) -> None:
        self._weight += 1
        self._x += x
        self._y += y
        self._xx += x * x
        self._xy += x * y

    def _fit(self) -> tuple[float, float]:
        mean_x, mean_y = self._x / self._weight, self._y / self._weight
        variance = self._xx / self._weight - mean_x * mean_x
        covariance = self._xy / self._weight - mean_x * mean_y
        # All of one length: slope and overhead cannot be separated, so all of it is slope.
        determined = variance > 1e-6 * mean_x * mean_x
        slope = max(covariance / variance if determined else mean_y / mean_x, 0.0)
        intercept = mean_y - slope * mean_x
        if intercept < 0:
            return mean_y / mean_x, 0.0
        return slope, intercept
