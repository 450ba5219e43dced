"""Memory and utilisation of this process's GPUs, by NVML, where nvidia-ml-py and a driver are.

Without them there are no such series and no error. Every GPU that the process may use is shown,
with its whole load: a GPU is pinned to one service, and what else runs on it is worth knowing.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_DRIVER: Final = (Path("/sys/module/nvidia/version"), Path("/proc/driver/nvidia/version"))
"""Files of the kernel: a container sees them too, whether it may use a GPU or not."""

_DRIVER_VERSION: Final = re.compile(r"\b\d{3,}(?:\.\d+)+\b")


def driver_version(files: Sequence[Path] = _DRIVER) -> str:
    """Return the version of the NVIDIA driver that the kernel has loaded; empty if there is none.

    WSL has the driver in Windows, which shows nothing here.
    """
    for file in files:
        try:
            if found := _DRIVER_VERSION.search(file.read_text(encoding="utf-8")):
                return found[0]
        except OSError:
            continue
    return ""


def _library() -> Any:
    return importlib.import_module("pynvml")


def register(
    registry: CollectorRegistry,
    environ: Mapping[str, str] = os.environ,
    load: Callable[[], Any] = _library,
) -> None:
    """Show the GPUs in `registry`, if there are any."""
    try:
        nvml = load()
    except ImportError:
        return
    try:
        nvml.nvmlInit()
        devices = _mine(nvml, environ.get("CUDA_VISIBLE_DEVICES"))
    except nvml.NVMLError:
        return
    if devices:
        registry.register(GpuCollector(nvml, devices))


class GpuCollector(Collector):
    """Reads NVML at each scrape; a GPU that cannot be read is left out of that scrape.

    Args:
        nvml: the module, initialised.
        devices: UUID -> handle.
    """

    def __init__(self, nvml: Any, devices: Mapping[str, Any]) -> None:
        self._nvml = nvml
        self._devices = devices

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The families of one scrape."""
        used = _family("raglan_gpu_memory_used_bytes", "Memory in use on a GPU, by anyone.")
        total = _family("raglan_gpu_memory_total_bytes", "Memory of a GPU.")
        busy = _family(
            "raglan_gpu_utilization_ratio", "Recent share of time in which a GPU ran anything."
        )
        for uuid, handle in self._devices.items():
            try:
                memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
                rates = self._nvml.nvmlDeviceGetUtilizationRates(handle)
            except self._nvml.NVMLError:
                continue
            used.add_metric((uuid,), memory.used)
            total.add_metric((uuid,), memory.total)
            busy.add_metric((uuid,), rates.gpu / 100)
        yield from (used, total, busy)


def _family(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=("gpu",))


def _mine(nvml: Any, visible: str | None) -> dict[str, Any]:
    """UUID -> handle of the GPUs that CUDA shows this process: all, or those named.

    CUDA names them by index or UUID, and stops at the first that does not exist.
    """
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    by_uuid = {_text(nvml.nvmlDeviceGetUUID(handle)): handle for handle in handles}
    if visible is None:
        return by_uuid
    uuids, chosen = list(by_uuid), {}
    for name in map(str.strip, visible.split(",")):
        if name.isdigit() and int(name) < len(uuids):
            uuid = uuids[int(name)]
        else:
            uuid = next((each for each in uuids if name and each.startswith(name)), "")
        if not uuid:
            break
        chosen[uuid] = by_uuid[uuid]
    return chosen


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
