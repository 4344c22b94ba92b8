#!/usr/bin/env python3
"""One hostile HTTP/2 connection after the other, each with its own abuse; tests/it/wire/abuse.rs runs this and reads the lines.

    PYTHONPATH=.tools/wire python3 tests/wire/h2_abuse.py HOST PORT [ABUSE…]

For each abuse one line of JSON: how the server ended the connection (`goaway` or `closed`, or `survived` when it did not within the
patience), after how many seconds from the first hostile frame, and how many frames were written by then.
"""

import json
import socket
import sys
import threading
import time

import h2.config
import h2.connection
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

# The server must act within a second; the rest is for a machine that is busy with other tests.
PATIENCE = 10
# Frames are written in pieces of about this size, as a fast caller's system would.
PIECE = 16 * 1024
GOAWAY = 7

GET = [(":method", "GET"), (":scheme", "http"), (":path", "/api/sources"), (":authority", "x")]
POST = [(":method", "POST"), (":scheme", "http"), (":path", "/api/search"), (":authority", "x")]


def rapid_reset():
    """A request and its reset, 10,000 times."""
    encoder = Encoder()
    for number in range(10_000):
        stream = 2 * number + 1
        yield HeadersFrame(stream, encoder.encode(GET), flags=["END_HEADERS", "END_STREAM"])
        yield RstStreamFrame(stream, error_code=8)


def rapid_reset_by_fault():
    """Requests that the server itself must reset: each gets a window update of nothing, which is an error of its stream."""
    encoder = Encoder()
    for number in range(10_000):
        stream = 2 * number + 1
        yield HeadersFrame(stream, encoder.encode(POST), flags=["END_HEADERS"])
        frame = WindowUpdateFrame(stream, window_increment=1).serialize()
        yield frame[:-4] + b"\0\0\0\0"


def continuation():
    """A head that never ends."""
    yield HeadersFrame(1, Encoder().encode(GET), flags=["END_STREAM"])
    block = Encoder().encode([("x-field", "y" * 1_000)], huffman=False)
    for _ in range(1_000_000):
        yield ContinuationFrame(1, block)


def continuation_empty():
    """The same with nothing in it."""
    yield HeadersFrame(1, Encoder().encode(GET), flags=["END_STREAM"])
    for _ in range(1_000_000):
        yield ContinuationFrame(1, b"")


def empty_data():
    """A body of a million frames without a byte."""
    yield HeadersFrame(1, Encoder().encode(POST + [("content-type", "application/json")]), flags=["END_HEADERS"])
    for _ in range(1_000_000):
        yield DataFrame(1, b"")


def settings():
    """Settings without end: each must be acknowledged."""
    for _ in range(1_000_000):
        yield SettingsFrame(settings={SettingsFrame.HEADER_TABLE_SIZE: 4_096})


def ping():
    """Pings without end: each must be answered."""
    for _ in range(1_000_000):
        yield PingFrame(opaque_data=b"12345678")


def ping_unread():
    """The same from a caller that does not read the answers."""
    yield from ping()


def priority():
    """Priorities without end, which nobody asked for."""
    for number in range(1_000_000):
        yield PriorityFrame(2 * number % 2_000_000 + 1, depends_on=0, stream_weight=1, exclusive=False)


def header_bomb():
    """Heads that unpack to far more than they are: 4,000 bytes in the table, named again and again."""
    encoder = Encoder()
    encoder.encode([("x-bomb", "y" * 3_900)])
    again = encoder.encode([("x-bomb", "y" * 3_900)])
    yield HeadersFrame(1, Encoder().encode(GET) + Encoder().encode([("x-bomb", "y" * 3_900)]), flags=["END_HEADERS"])
    for number in range(1, 10_000):
        block = Encoder().encode(GET) + again * 10_000
        yield HeadersFrame(2 * number + 1, block[:16_000], flags=["END_HEADERS", "END_STREAM"])


ABUSES = {
    abuse.__name__: abuse
    for abuse in (
        rapid_reset,
        rapid_reset_by_fault,
        continuation,
        continuation_empty,
        empty_data,
        settings,
        ping,
        ping_unread,
        priority,
        header_bomb,
    )
}


class Watcher(threading.Thread):
    """Reads what the server says until it says goodbye or closes."""

    def __init__(self, connection):
        super().__init__(daemon=True)
        self.connection = connection
        self.ended = None
        self.at = None

    def end(self, how):
        if self.ended is None:
            self.ended, self.at = how, time.monotonic()

    def run(self):
        held = b""
        while self.ended is None:
            try:
                got = self.connection.recv(65_536)
            except OSError:
                got = b""
            if not got:
                self.end("closed")
                return
            held += got
            while len(held) >= 9:
                frame, length = Frame.parse_frame_header(memoryview(held[:9]))
                if len(held) < 9 + length:
                    break
                held = held[9 + length :]
                if frame.type == GOAWAY:
                    self.end("goaway")


def commit(host, port, name):
    connection = socket.create_connection((host, port))
    connection.settimeout(PATIENCE)
    greeting = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    greeting.initiate_connection()
    connection.sendall(greeting.data_to_send())
    watcher = Watcher(connection)
    if name != "ping_unread":
        watcher.start()
    began, written, piece = time.monotonic(), 0, b""
    try:
        for frame in ABUSES[name]():
            if watcher.ended or time.monotonic() - began > PATIENCE:
                break
            piece += frame if isinstance(frame, bytes) else frame.serialize()
            written += 1
            if len(piece) >= PIECE:
                connection.sendall(piece)
                piece = b""
        connection.sendall(piece)
    except OSError as error:
        if not isinstance(error, TimeoutError):
            watcher.end("closed")
    if watcher.is_alive():
        watcher.join(max(0.0, PATIENCE - (time.monotonic() - began)))
    connection.close()
    ended = watcher.ended or "survived"
    seconds = (watcher.at or time.monotonic()) - began
    return {"abuse": name, "ended": ended, "seconds": round(seconds, 3), "frames": written}


def main():
    host, port, names = sys.argv[1], int(sys.argv[2]), sys.argv[3:] or list(ABUSES)
    for name in names:
        print(json.dumps(commit(host, port, name)), flush=True)


if __name__ == "__main__":
    main()
