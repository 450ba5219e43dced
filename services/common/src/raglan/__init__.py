"""Shared by every Raglan service: contracts, errors, settings, transport and telemetry."""

import os
from pkgutil import extend_path

__version__ = "0.1.0"

# `raglan.client` is a distribution of its own, which needs nothing of this one.
__path__ = extend_path(__path__, __name__)

# uvloop starts programs by fork(). gRPC's handlers would restart its threads in the child, which
# then crash now and then before the program begins. gRPC reads this when it is first used.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
