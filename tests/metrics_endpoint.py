"""What a service shows at its metrics endpoint."""

from __future__ import annotations

import asyncio
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families


async def scraped(port: int) -> dict[str, float]:
    """Sample with its labels -> value, of the endpoint at `port` on this machine."""
    url = f"http://127.0.0.1:{port}/metrics"
    with await asyncio.to_thread(urlopen, url, timeout=5) as reply:
        text = reply.read().decode()
    return {
        sample.name + "".join(f",{key}={value}" for key, value in sorted(sample.labels.items())):
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }  # fmt: skip
