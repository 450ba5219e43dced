"""Checks that the GPU which was asked for does the work: a fallback to the CPU fails here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from raglan_cli.verification import SERVING, Check, Row, failed, passed, skipped

SERVICES: Final = ("embedder", "reranker", "generator")

LEAST_SPEED_UP: Final = 2.0
"""By which a GPU that does the work is faster than the CPU. Measured ones are 10 and more."""

_GIB: Final = 1 << 30
_SETTINGS: Final = {
    "embedder": "RAGLAN_EMBEDDER_ENGINE=torch and RAGLAN_EMBEDDER_DEVICE=cuda",
    "reranker": "RAGLAN_RERANKER_RUNTIME=torch and RAGLAN_RERANKER_DEVICE=cuda",
    "generator": "RAGLAN_GENERATOR_ENGINE=vllm with vLLM's CUDA build",
}
_GIVE: Final = (
    "Set {settings}, and give the container the GPU: a device reservation in Compose, "
    "nvidia.com/gpu in Kubernetes, never the plain runc runtime (nvidia-smi inside must list it)."
)


def of_devices(rows: Sequence[Row], required: Sequence[str]) -> Iterator[Check]:
    """One check for each service that may run on a GPU.

    Args:
        rows: the processes of the mesh.
        required: services that must use a GPU, whatever their settings say.
    """
    for service in SERVICES:
        replicas = [row for row in rows if row["service"] == service and row["state"] == SERVING]
        if not replicas:
            yield skipped(f"gpu {service}", f"No {service} serves.")
        elif wrong := [found for row in replicas if (found := _fault(row, service in required))]:
            remedy = _GIVE.format(settings=_SETTINGS[service])
            yield failed(f"gpu {service}", " ".join(wrong), remedy)
        elif not _is_on_gpu(replicas[0]):
            yield skipped(f"gpu {service}", _why_none(replicas[0]))
        else:
            yield passed(f"gpu {service}", " ".join(map(_use, replicas)))


def _fault(row: Row, required: bool) -> str:
    """Return the problems of one replica's device; empty if there are none."""
    at, asked = row["address"], row.get("device_asked") or ""
    if not _is_on_gpu(row):
        if not set(asked.split(",")) <= {"", "auto", "cpu"}:
            return f"{at} was told {asked} and runs on {row['device']}."
        if required:
            return f"{at} runs on {row['device']}; a GPU is required."
        # Its own finding: a GPU that a torch which may choose does not see.
        return next((each for each in row.get("problems", ()) if "GPU" in each), "")
    for use in row.get("devices", ()):
        if not use["name"].startswith("cuda"):
            return f"{at} says {row['device']}, and its weights are on {use['name']}."
        speed_up = _speed_up(use)
        if speed_up and speed_up < LEAST_SPEED_UP:
            return (
                f"{use['name']} at {at} multiplies the model's largest matrix only {speed_up:.1f} "
                f"times as fast as the CPU ({use['matrix_s'] * 1e3:.2f} ms against "
                f"{use['cpu_matrix_s'] * 1e3:.2f} ms): another process has it, or it is throttled."
            )
    if required and not row.get("devices") and row["service"] != "generator":
        return f"{at} says {row['device']} and reports no measurement: it runs an older version."
    return ""


def _is_on_gpu(row: Row) -> bool:
    return str(row.get("device") or "").startswith("cuda")


def _speed_up(use: dict[str, Any]) -> float:
    """Times as fast as the CPU; 0 where it was not timed."""
    return use["cpu_matrix_s"] / use["matrix_s"] if use["matrix_s"] else 0.0


def _why_none(row: Row) -> str:
    if row.get("device") == "remote":
        return "Its model runs in a server of yours."
    sentence = f"It runs on the {str(row.get('device') or 'cpu').upper()}, as it was told to."
    if driver := row.get("driver"):
        settings = _SETTINGS[row["service"]]
        sentence += f" The NVIDIA driver {driver} is on its machine: {settings} would use a GPU."
    return sentence


def _use(row: Row) -> str:
    driver = f"driver {row.get('driver') or 'unknown'}"
    uses = row.get("devices") or ()
    if not uses:
        return f"{row['engine']} runs on {row['device']}, {driver}."
    return " ".join(
        f"{use['name']} is an {use['model']}, {driver}; the model holds "
        f"{use['used_bytes'] / _GIB:.1f} of {use['memory_bytes'] / _GIB:.0f} GiB; a batch of "
        f"{use['batch_tokens']:,} tokens takes {use['batch_s'] * 1e3:.1f} ms, its largest matrix "
        f"{_speed_up(use):.0f} times as fast as on the CPU."
        for use in uses
    )
