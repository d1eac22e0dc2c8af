"""A thread that gets on is told from one that stands still, whatever it is busy with."""

import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from engine.worker import thread_watch
from engine.worker.thread_watch import ThreadWatch


@contextmanager
def _watched(work):
    """A watch over a thread that does `work(stop)`, which ends when that event is set."""
    stop, begun = threading.Event(), threading.Event()

    def run():
        begun.set()
        work(stop)

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait()
    try:
        yield ThreadWatch(thread.ident), thread
    finally:
        stop.set()
        thread.join()


@pytest.fixture(autouse=True)
def no_disk(monkeypatch):
    """Other threads of the test may read."""
    monkeypatch.setattr(thread_watch, "_read_from_disk", str)


def _looks(watch, times=5) -> list[bool]:
    """Whether it got on, after the first look, which tells nothing."""
    found = []
    for _ in range(times + 1):
        found.append(watch.look())
        threading.Event().wait(0.01)
    return found[1:]


def test_a_thread_that_waits_in_a_library_stands_still():
    with _watched(lambda stop: stop.wait()) as (watch, _):
        while any(_looks(watch)):  # until it has come there
            pass
        assert watch.where.startswith("threading.py:") and watch.where.endswith(" wait")


def test_one_that_waits_again_and_again_gets_on():
    def work(stop):
        while not stop.wait(0.001):
            pass

    with _watched(work) as (watch, _):
        assert any(_looks(watch, 20))


@pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="the system does not tell")
def test_one_that_computes_in_one_place_gets_on_unless_it_may_be_waiting_for_a_gpu(monkeypatch):
    def work(stop):
        while not stop.is_set():
            sum(range(1000))

    with _watched(work) as (watch, _):
        assert sum(_looks(watch, 20)) >= 10
        monkeypatch.setattr(thread_watch, "_places", lambda frame: [])
        gpu = SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: True))
        monkeypatch.setitem(sys.modules, "torch", gpu)
        assert not any(_looks(watch))


def test_one_that_waits_for_a_compiler_gets_on():
    """It stands in one place for as long as that takes."""
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as compiler,
        _watched(lambda _: compiler.wait()) as (watch, _),
    ):
        assert all(_looks(watch))
        compiler.communicate(b"\n")


def test_reading_from_disk_is_getting_on(monkeypatch):
    read = iter(range(1000))
    monkeypatch.setattr(thread_watch, "_read_from_disk", lambda: str(next(read)))
    with _watched(lambda stop: stop.wait()) as (watch, _):
        assert all(_looks(watch))


def test_a_thread_that_has_ended_is_nowhere():
    with _watched(lambda stop: stop.wait()) as (watch, thread):
        watch._ident = -1
        watch.look()
        assert watch.where == "" and thread.is_alive()
