"""Real-time priority of a thread, as the system itself tells it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from engine import real_time
from engine.real_time import ask_for_real_time

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what it has been told")

NORMAL, REAL_TIME = os.SCHED_OTHER, os.SCHED_RR | os.SCHED_RESET_ON_FORK


def in_thread(work):
    """What `work` returns in a thread of its own."""
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def policies():
    """(what the call said, policy of the thread, policy of a thread and of a process that it starts)."""
    said = ask_for_real_time()
    own = os.sched_getscheduler(0)
    program = "import os; print(os.sched_getscheduler(0))"
    child = int(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
    return said, own, in_thread(lambda: os.sched_getscheduler(0)), child


def test_the_thread_has_it_and_nothing_else_where_the_system_allows_it():
    said, own, thread, child = in_thread(policies)
    if not said:
        pytest.skip("no real-time priority for this user")
    assert (own, thread, child) == (REAL_TIME, NORMAL, NORMAL)
    assert os.sched_getscheduler(0) == NORMAL


def test_who_has_more_keeps_it():
    def ask():
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(20))
        except OSError:
            return None
        return ask_for_real_time(), os.sched_getscheduler(0), os.sched_getparam(0).sched_priority

    found = in_thread(ask)
    if found is None:
        pytest.skip("no real-time priority for this user")
    assert found == (True, os.SCHED_FIFO, 20)


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="only root becomes somebody else")
def test_it_is_a_plain_no_where_the_system_does_not():
    program = (
        "from engine.real_time import ask_for_real_time as ask; import os, resource; "
        "resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0)); os.setuid(65534); print(ask(), os.sched_getscheduler(0))"
    )
    # Nor is there anybody to ask for it.
    environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/none"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert (done.stdout.split(), done.stderr) == (["False", "0"], "")


@pytest.mark.parametrize("is_allowed", [1, 0])
def test_windows_is_asked_for_timers_and_for_the_thread(monkeypatch, is_allowed):
    """Calls as Microsoft documents them, of libraries that are not here."""
    asked = []
    kernel = SimpleNamespace(
        GetCurrentThread=lambda: -2, SetThreadPriority=lambda *given: (asked.append(given), is_allowed)[1]
    )
    libraries = SimpleNamespace(kernel32=kernel, winmm=SimpleNamespace(timeBeginPeriod=asked.append))
    monkeypatch.setattr(real_time.ctypes, "windll", libraries, raising=False)
    monkeypatch.setattr(real_time.sys, "platform", "win32")
    assert ask_for_real_time() is bool(is_allowed)
    assert asked == [1, (-2, 2)]
