from __future__ import annotations

import errno
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from raglan import logs, tenancy
from raglan.deadline import Deadline
from raglan.settings import ServiceSettings
from raglan.telemetry import context

SECRET = "correct-horse-battery"


class Settings(ServiceSettings, env_prefix="RAGLAN_X_"):
    redis_url: SecretStr = SecretStr(f"redis://:{SECRET}@cache")
    """Secret."""


class Stderr(io.TextIOWrapper):
    def __init__(self) -> None:
        super().__init__(io.BytesIO(), write_through=True)

    def taken(self) -> str:
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        said = buffer.getvalue().decode()
        buffer.seek(0)
        buffer.truncate()
        return said

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.taken().splitlines()]


Configured = Callable[..., Stderr]


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[Configured]:
    """Configure logging of a process whose stderr is returned; all is as before afterwards."""
    root = logging.getLogger()
    handlers, level, hook = root.handlers[:], root.level, sys.excepthook

    def configure(service: str = "gateway", **more: Any) -> Stderr:
        stderr = Stderr()
        monkeypatch.setattr(sys, "stderr", stderr)
        logs.configure(Settings(**{"log_format": "json"} | more), service)
        return stderr

    yield configure
    logging.captureWarnings(False)
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook = hook


def test_a_line_tells_request_trace_stage_and_what_is_left(configured: Configured) -> None:
    stderr = configured()
    trace = f"00-{'ab' * 16}-{'cd' * 8}-01"

    def handle() -> None:
        Deadline.after(2).adopt()
        with logs.in_stage("rerank"):
            structlog.get_logger().info("request", status=200)

    with context.incoming({"x-request-id": "r-1", "traceparent": trace}):
        import contextvars

        contextvars.copy_context().run(handle)
    (line,) = stderr.lines()
    assert 1_000 < line.pop("remaining_ms") <= 2_000
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "service": "gateway",
        "event": "request",
        "request_id": "r-1",
        "trace_id": "ab" * 16,
        "stage": "rerank",
        "status": 200,
    }


def test_a_line_names_the_tenant(configured: Configured) -> None:
    stderr = configured()
    with tenancy.serving("acme"):
        structlog.get_logger().info("one")
    structlog.get_logger().info("two")
    one, two = stderr.lines()
    assert one["tenant"] == "acme"
    assert "tenant" not in two


def test_outside_of_a_request_a_line_tells_only_what_it_was_given(configured: Configured) -> None:
    stderr = configured("ingester")
    structlog.get_logger().warning("upkeep")
    (line,) = stderr.lines()
    assert set(line) == {"timestamp", "level", "service", "event"}


def test_a_service_that_is_a_stage_names_it_and_an_event_may_name_its_own(
    configured: Configured,
) -> None:
    stderr = configured("retriever")
    log = structlog.get_logger()
    log.info("a")
    log.info("b", stage="export", service="another")
    assert [(line["stage"], line["service"]) for line in stderr.lines()] == [
        ("retrieve", "retriever"),
        ("export", "retriever"),
    ]


def test_events_below_the_level_are_not_made(configured: Configured) -> None:
    stderr = configured(log_level="warning")
    structlog.get_logger().info("quiet")
    assert stderr.taken() == ""


def test_an_event_that_spans_lines_is_one_line(configured: Configured) -> None:
    stderr = configured()
    structlog.get_logger().info("a\nb", reason="c\r\nd\u2028e")
    assert stderr.taken().count("\n") == 1


def fail() -> None:
    passage = "a passage that nobody may read"
    raise ValueError(f"no route to redis://:hunter22hunter@cache for {len(passage)}")


def test_an_exception_is_told_without_locals_and_credentials(configured: Configured) -> None:
    stderr = configured()
    try:
        fail()
    except ValueError:
        structlog.get_logger().exception("failed")
    said = stderr.taken()
    (told,) = json.loads(said)["exception"]
    assert told["exc_type"] == "ValueError"
    assert told["exc_value"] == "no route to redis://[redacted]@cache for 30"
    assert told["frames"][-1]["name"] == "fail"
    assert "nobody may read" not in said


@pytest.mark.parametrize("form", ["json", "console"])
@given(text=st.text(max_size=30), where=st.sampled_from(["event", "field", "raised", "foreign"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_secret_of_the_settings_ever_leaves(
    configured: Configured, form: str, text: str, where: str
) -> None:
    stderr = configured(log_format=form)
    said = f"{text}{Settings().redis_url.get_secret_value()}{text}"
    log, foreign = structlog.get_logger(), logging.getLogger("httpx")
    try:
        raise ConnectionError(said) from OSError(said)
    except ConnectionError:
        if where == "event":
            log.error(said)
        elif where == "field":
            log.error("x", reason=said, nested={"a": [said]})
        elif where == "raised":
            log.exception("x")
        else:
            foreign.warning("%s", said, exc_info=True)
    written = stderr.taken()
    assert written
    assert SECRET not in written


@pytest.mark.parametrize("name", ["uvicorn.error", "httpx", "qdrant_client", "vllm", "asyncio"])
def test_lines_of_other_libraries_have_the_same_form(configured: Configured, name: str) -> None:
    stderr = configured()
    logging.getLogger(name).warning("cannot use %s", "Authorization: Bearer abc.def.ghi")
    logging.getLogger(name).info("not shown")
    (line,) = stderr.lines()
    assert line["logger"] == name
    assert (line["level"], line["service"]) == ("warning", "gateway")
    assert line["event"] == "cannot use Authorization: [redacted]"


def test_a_foreign_line_that_does_not_fit_its_arguments_is_named_alone(
    configured: Configured,
) -> None:
    stderr = configured()
    logging.getLogger("vllm").warning("%d prompts", "a passage")
    (line,) = stderr.lines()
    assert line["event"] == "a message that cannot be formatted"
    assert line["line"].startswith("test_logs.py:")
    assert "passage" not in json.dumps(line)


def test_a_warning_of_python_is_a_line(configured: Configured) -> None:
    stderr = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    (line,) = stderr.lines()
    assert line["logger"] == "py.warnings"


def test_what_ends_the_process_is_a_line_too(configured: Configured) -> None:
    stderr = configured()
    try:
        fail()
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    (line,) = stderr.lines()
    assert (line["level"], line["event"]) == ("critical", "ended by an error")
    assert "hunter22" not in json.dumps(line)


def test_a_terminal_gets_text(configured: Configured) -> None:
    stderr = configured(log_format="console")
    structlog.get_logger().info("serving", address="127.0.0.1:1", token="abcdefgh")
    said = stderr.taken()
    assert "serving" in said
    assert "address=127.0.0.1:1" in said
    assert "abcdefgh" not in said
    assert not said.startswith("{")


def test_a_key_over_several_lines_is_no_part_of_a_traceback(configured: Configured) -> None:
    stderr = configured(log_format="console")
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAK\nZm9vYmFy\n-----END RSA PRIVATE KEY-----"
    try:
        raise ValueError(f"cannot read {key}, it is no key")
    except ValueError:
        structlog.get_logger().exception("cannot start")
    written = stderr.taken()
    assert "MIIEowIBAAK" not in written
    assert "Zm9vYmFy" not in written
    assert "it is no key" in written


class Disk(io.RawIOBase):
    """A file on a disk that has `free` bytes."""

    def __init__(self, free: int) -> None:
        self.free, self.written = free, b""

    def write(self, line: Any) -> int:
        part = bytes(line[: self.free])
        if line and not part:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.free -= len(part)
        self.written += part
        return len(part)

    def writable(self) -> bool:
        return True


def test_a_full_disk_costs_lines_which_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(free=100)
    stream = io.TextIOWrapper(io.BufferedWriter(disk))
    output = logs.Output(stream)
    for number in range(5):
        output.msg(b'{"event": "%d", "more": "%s"}' % (number, b"x" * 50))
    disk.free = 10_000
    output.msg(b'{"event": "last"}')
    first, cut, *rest = disk.written.splitlines()
    assert json.loads(first)["event"] == "0"
    assert cut.startswith(b'{"event": "1"')
    assert [json.loads(line) for line in rest] == [
        {"level": "warning", "event": "log lines lost", "lines": 4},
        {"event": "last"},
    ]


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("name", ["full", "closed", "broken pipe"])
def test_a_stream_that_takes_nothing_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, configured: Configured, form: str, name: str
) -> None:
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w") if name == "broken pipe" else open("/dev/full", "w")  # noqa: PTH123, SIM115
    with suppress(OSError), stream:
        configured(log_format=form)
        monkeypatch.setattr(sys, "stderr", stream)
        logs.configure(Settings(log_format=form), "gateway")
        if name == "closed":
            stream.close()
        try:
            raise ValueError("x")
        except ValueError:
            structlog.get_logger().exception("of ours")
            logging.getLogger("httpx").exception("of a library")
        sys.excepthook(ValueError, ValueError("x"), None)


class Unspeakable(dict[str, str]):
    def items(self) -> Any:
        raise RuntimeError(SECRET)


def test_a_line_that_cannot_be_made_is_named(configured: Configured) -> None:
    stderr = configured()
    structlog.get_logger().info("request", fields=Unspeakable(a="b"))
    (line,) = stderr.lines()
    assert line["event"] == "a line that cannot be made"
    assert line["of"] == "request"
    assert line["cause"] == "RuntimeError"
