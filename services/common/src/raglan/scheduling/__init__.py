"""The queue before the devices: what runs next, decided by a state machine, run by threads.

`Scheduler` decides and knows no clock, thread or loop; `Dispatcher` feeds it from an event loop and
runs what it hands out on a thread a stream. Nothing here imports grpc or torch.
"""

from raglan.scheduling.answer import Answer, Timing
from raglan.scheduling.batch_run import Stream
from raglan.scheduling.dispatcher import Dispatcher, Observer, Pool
from raglan.scheduling.latency import LatencyModel
from raglan.scheduling.scheduler import Scheduler
from raglan.scheduling.work import Batch, BatchTooLarge, DeviceLost, FlushReason, Item, Lane, Limits

__all__ = [
    "Answer",
    "Batch",
    "BatchTooLarge",
    "DeviceLost",
    "Dispatcher",
    "FlushReason",
    "Item",
    "Lane",
    "LatencyModel",
    "Limits",
    "Observer",
    "Pool",
    "Scheduler",
    "Stream",
    "Timing",
]
