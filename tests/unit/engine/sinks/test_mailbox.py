"""A sink's own thread and slots: nothing a sink does reaches the pacer."""

from __future__ import annotations

import os
import sys
import threading
import time

import numpy as np
import pytest

from engine.errors import CameraError, StandinError
from engine.media import CanvasFormat
from engine.real_time import ask_for_real_time
from engine.sinks.base import PresentedFrame
from engine.sinks.mailbox import Mailbox

CANVAS = CanvasFormat(width=8, height=4, fps=25)


class Sink:
    """Keeps the first pixel of what it gets; can be made to wait or fail."""

    name = "test"

    def __init__(self):
        self.seen, self.threads = [], set()
        self.may_send = threading.Event()
        self.may_send.set()
        self.in_send = threading.Event()
        self.fail_in = ""
        self.closed = 0

    def open(self, canvas):
        self._step("open")

    def send(self, frame):
        self.in_send.set()
        self.may_send.wait(10)
        self._step("send")
        self.seen.append((frame.tick, int(frame.image[0, 0, 0])))

    def close(self):
        self.closed += 1
        self._step("close")

    def _step(self, step):
        self.threads.add(threading.current_thread().name)
        if self.fail_in == step:
            raise CameraError("The camera is gone.", code="camera.gone")


def _frame(tick: int) -> PresentedFrame:
    return PresentedFrame(image=np.full((4, 8, 3), tick, np.uint8), tick=tick, frame=tick, due_s=0.0)


def test_all_frames_arrive_in_order_on_the_sinks_thread():
    sink = Sink()
    box = Mailbox(sink, CANVAS, slots=100)
    for tick in range(50):
        box.put(_frame(tick))
    assert box.close()
    assert sink.seen == [(t, t) for t in range(50)]
    assert sink.threads == {"sink-test"} and sink.closed == 1
    assert (box.stats().sent, box.stats().dropped) == (50, 0)


def test_blocked_sink_never_delays_put_and_gets_the_newest_afterwards():
    sink = Sink()
    sink.may_send.clear()
    box = Mailbox(sink, CANVAS)
    box.put(_frame(0))
    assert sink.in_send.wait(5)
    started = time.monotonic()
    for tick in range(1, 40):
        box.put(_frame(tick))
    assert time.monotonic() - started < 5  # the sink waits up to 10 s
    assert box.stats().dropped == 38 and box.stats().queue_ms == 40.0
    sink.may_send.set()
    assert box.close()
    assert sink.seen == [(0, 0), (39, 39)]


def test_the_picture_is_copied_when_put():
    sink = Sink()
    sink.may_send.clear()
    box = Mailbox(sink, CANVAS, slots=2)
    frame = _frame(7)
    box.put(frame)
    frame.image[:] = 99
    sink.may_send.set()
    assert box.close() and sink.seen == [(7, 7)]


@pytest.mark.parametrize("step", ["open", "send", "close"])
def test_error_ends_the_sink_and_is_told_once(step):
    sink, told = Sink(), []
    sink.fail_in = step
    box = Mailbox(sink, CANVAS, slots=4, on_error=told.append)
    for tick in range(3):
        box.put(_frame(tick))
    assert box.close()
    assert [error.code for error in told] == ["camera.gone"] and box.error is told[0]
    assert sink.closed == 1 and box.stats().failed >= 1


def test_wait_opened_raises_what_the_sink_raised():
    sink = Sink()
    sink.fail_in = "open"
    box = Mailbox(sink, CANVAS)
    with pytest.raises(CameraError, match="gone"):
        box.wait_opened(5)
    box.close()


def test_bug_in_a_sink_is_reported_as_an_error(caplog):
    sink = Sink()
    sink.send = lambda frame: 1 / 0
    box = Mailbox(sink, CANVAS)
    box.put(_frame(1))
    box.close()
    assert isinstance(box.error, StandinError) and box.error.code == "test.internal"
    assert "ZeroDivisionError" in caplog.text


def test_hanging_sink_is_left_behind():
    sink = Sink()
    sink.may_send.clear()
    box = Mailbox(sink, CANVAS)
    box.put(_frame(1))
    assert sink.in_send.wait(5)
    assert box.close(timeout_s=0.05) is False
    sink.may_send.set()
    assert box.close()


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what it has been told")
@pytest.mark.parametrize("is_real_time", [False, True])
def test_only_a_sink_that_others_watch_gets_real_time_priority(is_real_time):
    """As far as this user may have it."""
    sink, policies = Sink(), []
    sink.is_real_time = is_real_time
    sink.open = lambda canvas: policies.append(os.sched_getscheduler(0))
    Mailbox(sink, CANVAS).close()
    thread = threading.Thread(target=lambda: policies.append(is_real_time and ask_for_real_time()))
    thread.start()
    thread.join()
    assert policies[0] == (os.SCHED_RR | os.SCHED_RESET_ON_FORK if policies[1] else os.SCHED_OTHER)
