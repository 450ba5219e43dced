"""Resilience: circuit breakers, retry budgets, live latencies and admission.

All of it is state of one process and one event loop, as in Envoy, Finagle and gRPC: what a client
sees of an endpoint is what decides, and no store has to be up for it. Nothing here imports grpc.
"""

from raglan.resilience.breaker import BreakerOptions, CircuitBreaker, Permit, State
from raglan.resilience.budget import Budget
from raglan.resilience.latency import LatencyWindow
from raglan.resilience.limiter import AdaptiveLimiter, Priority, Slot

__all__ = [
    "AdaptiveLimiter",
    "BreakerOptions",
    "Budget",
    "CircuitBreaker",
    "LatencyWindow",
    "Permit",
    "Priority",
    "Slot",
    "State",
]
