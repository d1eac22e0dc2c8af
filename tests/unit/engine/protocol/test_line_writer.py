"""Who tells something never waits for who reads it."""

from __future__ import annotations

import contextlib
import os
import threading

import pytest

from engine.protocol.line_writer import LineWriter


@pytest.fixture
def pipe():
    """(what the writer writes to, what is read from)"""
    reading, writing = os.pipe()
    ends = os.fdopen(writing, "wb"), os.fdopen(reading, "rb")
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            end.close()


def test_lines_come_in_order(pipe):
    writer = LineWriter(pipe[0])
    for number in range(500):
        writer.write(b"%d\n" % number)
    assert writer.flush(20)
    assert [int(pipe[1].readline()) for _ in range(500)] == list(range(500))


def test_reader_that_hangs_holds_nobody_up_and_misses_only_statistics(pipe):
    writer, line = LineWriter(pipe[0]), b"x" * 999 + b"\n"
    done = threading.Event()

    def tell():
        for number in range(400):
            writer.write(line, is_passing=number % 4 != 0)
        writer.write(b"the last one\n")
        done.set()

    threading.Thread(target=tell, daemon=True).start()
    assert done.wait(20), "somebody waited"
    assert not writer.flush(0.05)
    told = list(iter(pipe[1].readline, b"the last one\n"))
    assert 100 <= len(told) < 250 and writer.flush(20)


def test_reader_that_is_gone_is_no_error(pipe):
    writer = LineWriter(pipe[0])
    pipe[1].close()
    for _ in range(10):
        writer.write(b"hello\n")
    assert writer.flush(20)


def test_what_waits_is_bounded(pipe):
    writer = LineWriter(pipe[0])
    for _ in range(5000):
        writer.write(b"x" * 999 + b"\n")
    assert len(writer._waiting) <= 1000
    threading.Thread(target=pipe[1].read, daemon=True).start()
    assert writer.flush(20)
    pipe[0].close()
