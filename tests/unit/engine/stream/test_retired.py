"""Generators that have made way are closed beside the one that goes on."""

from __future__ import annotations

import threading
import time

from engine.stream.swap import Retired


def test_one_that_takes_long_to_close_is_not_waited_for_before_the_end(scene_of, plain_generator):
    slow, quick = plain_generator(name="slow"), plain_generator(name="quick")
    may_close = threading.Event()
    close = slow.close
    slow.close = lambda: (may_close.wait(30), close())
    retired = Retired()
    retired.add(scene_of(slow))
    retired.add(scene_of(slow))
    retired.close_beside()
    retired.close_beside()
    retired.add(scene_of(quick))
    assert (slow.closed, quick.closed) == (0, 0)
    ending = threading.Thread(target=retired.close)
    ending.start()
    deadline = time.monotonic() + 20
    while quick.closed == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ending.is_alive() and (slow.closed, quick.closed) == (0, 1)
    may_close.set()
    ending.join(20)
    assert not ending.is_alive() and (slow.closed, quick.closed) == (1, 1)


def test_the_next_picture_does_not_wait_for_processes_that_have_died(runner_rig, pair, caplog):
    rig, wanted, standby = pair
    may_close = threading.Event()
    close = wanted.close
    wanted.close = lambda: (may_close.wait(30), close())
    runner_rig.break_soon(wanted)
    before = len(standby.chunks)
    rig.work(0.4)
    made, closed = len(standby.chunks) - before, wanted.closed
    may_close.set()
    rig.runner.close()
    assert made > 2 and closed == 0 and wanted.closed == 1
