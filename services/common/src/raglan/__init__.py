"""Shared by every Raglan service: contracts, errors, settings, transport and telemetry."""

import os

__version__ = "0.1.0"

# uvloop starts programs by fork(). gRPC's handlers would restart its threads in the child, which
# then crash now and then before the program begins. gRPC reads this when it is first used.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
