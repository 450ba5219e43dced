"""The gateway as a process: what each signal does."""

import os
import signal
import subprocess
import sys

import gateway_serving
import httpx
import ports
import pytest


@pytest.fixture
def process():
    """Starts `python -m raglan_gateway`, and returns once it answers."""
    started = []

    def start(**options):
        port = ports.free_port()
        variables = gateway_serving.NOWHERE | {"port": str(port)} | options
        named = {f"RAGLAN_GATEWAY_{name.upper()}": value for name, value in variables.items()}
        started.append(
            subprocess.Popen([sys.executable, "-m", "raglan_gateway"], env=os.environ | named)
        )
        client = httpx.Client(transport=httpx.HTTPTransport(retries=7))
        with client:
            client.get(f"http://127.0.0.1:{port}/healthz")
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.wait()


def test_the_first_signal_ends_it_well_and_the_second_at_once(process):
    patient = process(shutdown_drain_s="60")
    patient.send_signal(signal.SIGTERM)
    quick = process(shutdown_drain_s="0")
    quick.send_signal(signal.SIGINT)
    assert quick.wait(gateway_serving.LIMIT_S) == 0
    assert patient.poll() is None
    patient.send_signal(signal.SIGTERM)
    assert patient.wait(gateway_serving.LIMIT_S) == -signal.SIGTERM
