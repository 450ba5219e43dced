"""The fault matrix: every row, the mesh it wants, and whether `make test` runs it too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from faults import changes, clients, replicas, schedules
from faults.bed import SERVICES, Setup
from faults.open_loop import Options
from faults.trial import Trial

RunRow = Callable[[Trial, Options], Awaitable[None]]
USUAL = Setup()


@dataclass(frozen=True)
class Scenario:
    """One row: a function that breaks a mesh under load and says what must still hold."""

    name: str
    run: RunRow
    setup: Setup = USUAL
    short: bool = False


_LONG_STREAMS = Setup(
    variables=(
        ("generator", "RAGLAN_GENERATOR_NULL_TOKENS", "60"),
        ("generator", "RAGLAN_GENERATOR_NULL_TOKEN_MS", "1000"),
    ),
    max_tokens=1,
)
_REDIS = Setup(redis=True, questions=100)
_KEPT_ANSWERS = Setup(questions=100)

TABLE: tuple[Scenario, ...] = (
    *(
        Scenario(
            f"kill_{each}", partial(replicas.kill_one, service=each), short=each == "generator"
        )
        for each in SERVICES
    ),
    *(
        Scenario(
            f"all_{each}s_down", partial(replicas.all_down, service=each), short=each == "reranker"
        )
        for each in ("embedder", "reranker")
    ),
    Scenario("retriever_down", replicas.retriever_down, _KEPT_ANSWERS),
    Scenario("generator_down", replicas.generator_down),
    Scenario("generator_dies", replicas.generator_dies, short=True),
    *(Scenario(f"stop_{each}", partial(replicas.stop_one, service=each)) for each in SERVICES),
    *(Scenario(f"slow_{each}", partial(replicas.slow_one, service=each)) for each in SERVICES),
    Scenario("all_slower", replicas.all_slower),
    Scenario("black_hole", replicas.black_hole, Setup(proxied=("embedder", "generator"))),
    Scenario("crowd_leaves", clients.crowd_leaves, _LONG_STREAMS),
    *(
        Scenario(f"redis_{how}", partial(changes.redis_fails, how=how), _REDIS)
        for how in ("refuses", "hangs", "flushed")
    ),
    *(
        Scenario(f"overload_{times}x", partial(clients.overload, times=times))
        for times in (2, 5, 10)
    ),
    Scenario("failing_and_retried", clients.failing_and_retried, short=True),
    Scenario("rolling_restart", changes.rolling_restart),
    Scenario("scale_up", changes.scale_up, Setup(single=("embedder",), spare=(("embedder", 2),))),
    Scenario("clock_steps", changes.clock_steps, Setup(clock=True)),
    Scenario("blocked_loop", replicas.blocked_loop),
    *(Scenario(f"random_{seed}", partial(schedules.at_random, seed=seed)) for seed in range(1, 21)),
)
