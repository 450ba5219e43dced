"""Unary gRPC calls as HTTP/2 frames that are prepared beforehand: a load that costs little.

A gRPC client in Python takes a third of a millisecond a call, on cores that it shares with the
server under measurement; one call of this costs a few microseconds. It writes what is due and reads
what came once a millisecond, over one connection, and decodes headers after the run.
"""

from __future__ import annotations

import math
import socket
import struct
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import grpc
from callers import LATE, Target
from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from load import Answers

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_TICK_S: Final = 0.001
_START_S: Final = 0.05
_LAST_ANSWERS_S: Final = 2.0
_READ_BYTES: Final = 1 << 20
_WINDOW: Final = 65_535
"""Bytes that may be sent before the server allows more, of the connection and of each call."""
_CANCEL: Final = 8

_HEAD: Final = struct.Struct(">BHBBL")
_STREAM: Final = struct.Struct(">L")
_STREAM_AT: Final = 5
_HEAD_BYTES: Final = 9

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM: Final = 0x1
_ACK: Final = 0x1

_STATUS_OF: Final = {str(code.value[0]): code.name for code in grpc.StatusCode}


class ConnectionLost(Exception):
    """The server closed the connection: the run has no figures."""


@dataclass(frozen=True)
class Frames:
    """Calls over one connection: at `arrivals`, or by `clients` that wait for their answers.

    A call that is not answered in time is cancelled at its deadline, as gRPC's clients do.
    """

    target: Target
    requests: Sequence[bytes]
    """Serialised messages, taken in turn; again from the first when there are more calls."""

    timeout_s: float
    arrivals: Sequence[float] = ()
    """Seconds after the start at which calls are made, whatever the answers do."""

    clients: int = 0
    seconds: float = 0.0
    """Duration of the load of `clients`."""

    async def run(self) -> Answers:
        """Make the calls. Nothing else may run on this event loop."""
        answers = _Run(self).answers()
        if self.arrivals:
            answers.due = list(self.arrivals[: len(answers.sent)])
        return answers


@dataclass
class _Calls:
    """Of each call, by its number: when it was sent, when it ended, and how."""

    sent: list[float] = field(default_factory=list)
    done: list[float] = field(default_factory=list)
    ended: list[bytes | str | None] = field(default_factory=list)
    """The header block that ended it, or a status where we did; None while it runs."""


class _Run:
    def __init__(self, load: Frames) -> None:
        self._load = load
        self._calls = _Calls()
        self._running: deque[int] = deque()
        """Numbers of calls in the order of their deadlines; those that ended are still there."""
        self._in_flight = 0
        self._window = _WINDOW
        self._blocks: list[tuple[int, bytes]] = []
        """Every header block in the order of arrival, with the number of its call."""
        self._input = b""
        self._output = bytearray()
        self._prepare()

    def _prepare(self) -> None:
        """Build the frames of every call but for the number of their stream."""
        load = self._load
        encoder = Encoder()
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", load.target.path),
            (":authority", f"127.0.0.1:{load.target.port}"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("grpc-timeout", f"{math.ceil(load.timeout_s * 1e3)}m"),
        ]
        # The first block fills the table of the connection; all others refer to it.
        self._first, self._heads = (_headers(encoder.encode(headers)) for _ in range(2))
        self._bodies = [_data(request) for request in load.requests]
        self._most = max(map(len, self._bodies))
        if self._most > _WINDOW:
            raise ValueError(f"a request of {self._most} bytes; the limit is {_WINDOW}")

    def answers(self) -> Answers:
        load = self._load
        with socket.create_connection(("127.0.0.1", load.target.port), timeout=30) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(_greeting())
            connection.setblocking(False)
            begun = time.perf_counter() + _START_S
            self._go(connection, begun)
            seconds = time.perf_counter() - begun
        return self._told(seconds)

    def _go(self, connection: socket.socket, begun: float) -> None:
        load, calls = self._load, self._calls
        last = load.arrivals[-1] if load.arrivals else load.seconds
        ends_at = last + load.timeout_s + _LAST_ANSWERS_S
        while True:
            now = time.perf_counter() - begun
            self._send_due(now)
            self._cancel_late(now)
            self._write(connection)
            over = len(calls.sent) >= len(load.arrivals) and now >= last
            if (over and not self._in_flight) or now > ends_at:
                return
            time.sleep(_TICK_S)
            self._read(connection, begun)

    def _send_due(self, now: float) -> None:
        load, calls = self._load, self._calls
        if load.arrivals:
            due = bisect_right(load.arrivals, now)
            while len(calls.sent) < due and self._call(now):
                pass
        elif 0 <= now < load.seconds:
            while self._in_flight < load.clients and self._call(now):
                pass

    def _call(self, now: float) -> bool:
        """Send the next call, if the connection's window allows it."""
        if self._window < self._most:
            return False
        number = len(self._calls.sent)
        body = self._bodies[number % len(self._bodies)]
        stream = _STREAM.pack(2 * number + 1)
        for frame in (self._first if number == 0 else self._heads, body):
            at = len(self._output) + _STREAM_AT
            self._output += frame
            self._output[at : at + 4] = stream
        self._window -= len(body) - _HEAD_BYTES
        self._calls.sent.append(now)
        self._calls.done.append(math.nan)
        self._calls.ended.append(None)
        self._running.append(number)
        self._in_flight += 1
        return True

    def _cancel_late(self, now: float) -> None:
        calls = self._calls
        while self._running:
            number = self._running[0]
            if calls.ended[number] is None:
                if calls.sent[number] + self._load.timeout_s > now:
                    return
                self._end(number, LATE, now)
                self._output += RstStreamFrame(2 * number + 1, error_code=_CANCEL).serialize()
            self._running.popleft()

    def _end(self, number: int, how: bytes | str, now: float) -> None:
        if self._calls.ended[number] is None:
            self._calls.ended[number] = how
            self._calls.done[number] = now
            self._in_flight -= 1

    def _write(self, connection: socket.socket) -> None:
        if not self._output:
            return
        try:
            sent = connection.send(self._output)
        except BlockingIOError:
            return
        del self._output[:sent]

    def _read(self, connection: socket.socket, begun: float) -> None:
        try:
            got = connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        if not got:
            raise ConnectionLost("The server closed the connection.")
        now = time.perf_counter() - begun
        data, at = self._input + got, 0
        while len(data) - at >= _HEAD_BYTES:
            high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
            end = at + _HEAD_BYTES + (high << 16 | low)
            if end > len(data):
                break
            if kind != _DATA:
                self._received(kind, flags, stream, data[at + _HEAD_BYTES : end], now)
            at = end
        self._input = data[at:]

    def _received(self, kind: int, flags: int, stream: int, payload: bytes, now: float) -> None:
        number = (stream - 1) // 2
        if kind == _HEADERS:
            self._blocks.append((number, payload))
            if flags & _END_STREAM:
                self._end(number, payload, now)
        elif kind == _RESET:
            self._end(number, f"RST_STREAM {int.from_bytes(payload)}", now)
        elif kind == _WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload)
        elif kind == _SETTINGS and not flags & _ACK:
            self._output += SettingsFrame(flags=["ACK"]).serialize()
        elif kind == _PING and not flags & _ACK:
            self._output += PingFrame(opaque_data=payload, flags=["ACK"]).serialize()
        elif kind == _GOAWAY:
            raise ConnectionLost(f"The server sent GOAWAY: {payload!r}")

    def _told(self, seconds: float) -> Answers:
        """Decode what came; header blocks refer to those before them, so all of them."""
        decoder = Decoder()
        statuses: dict[int, str] = {}
        for number, block in self._blocks:
            found = dict(decoder.decode(block, raw=True))
            if (status := found.get(b"grpc-status")) is not None:
                statuses[number] = _STATUS_OF[status.decode()]
        calls = self._calls
        status = [
            how if isinstance(how, str) else LATE if how is None else statuses[number]
            for number, how in enumerate(calls.ended)
        ]
        done = [seconds if math.isnan(at) else at for at in calls.done]
        none = [0] * len(done)
        sent = calls.sent
        return Answers(list(sent), list(sent), list(done), done, status, none, none, seconds)


def _greeting() -> bytes:
    largest = SettingsFrame.INITIAL_WINDOW_SIZE
    settings = SettingsFrame(settings={SettingsFrame.ENABLE_PUSH: 0, largest: 2**31 - 1})
    window = WindowUpdateFrame(0, window_increment=2**31 - 1 - _WINDOW)
    return _PREFACE + settings.serialize() + window.serialize()


def _headers(block: bytes) -> bytes:
    return _frame(HeadersFrame(1, data=block, flags=["END_HEADERS"]))


def _data(message: bytes) -> bytes:
    prefixed = b"\0" + len(message).to_bytes(4) + message
    return _frame(DataFrame(1, data=prefixed, flags=["END_STREAM"]))


def _frame(frame: Frame) -> bytes:
    return bytes(frame.serialize())
