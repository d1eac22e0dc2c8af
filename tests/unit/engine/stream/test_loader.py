"""When the loading thread works, when it waits, and when there is none."""

from __future__ import annotations

import threading

import pytest

from engine.stream.loader import Loader


class Owner:
    """Keeps what its loader did; `wanted` more loads are wanted."""

    def __init__(self):
        self.news, self.stopping = threading.Condition(), threading.Event()
        self.wanted, self.loads, self.ends = 1, 0, 0
        self.threads = set()
        self.may_load, self.in_load = threading.Event(), threading.Event()
        self.may_load.set()
        self.loader = Loader(
            self.news, self.stopping, is_wanted=lambda: self.wanted > 0, load=self._load, on_stopped=self._end
        )

    def _load(self):
        self.threads.add(threading.get_ident())
        self.in_load.set()
        self.may_load.wait(20)
        with self.news:
            self.loads, self.wanted = self.loads + 1, self.wanted - 1

    def _end(self):
        self.ends += 1

    def ask(self, wait_s):
        with self.news:
            self.loader.ask(wait_s)

    def wait_for_end(self):
        self.loader.join(20)
        assert not self.loader.is_running


@pytest.fixture
def owner():
    made = Owner()
    yield made
    made.stopping.set()
    made.may_load.set()
    made.wait_for_end()


def test_a_load_that_is_asked_for_is_done_once_and_the_thread_ends(owner):
    owner.ask(0.0)
    owner.wait_for_end()
    assert (owner.loads, owner.ends) == (1, 0) and not owner.loader.is_planned


def test_what_is_asked_for_during_a_load_is_done_by_the_same_thread(owner):
    owner.may_load.clear()
    owner.wanted = 2
    owner.ask(0.0)
    assert owner.in_load.wait(20)
    owner.ask(0.0)
    owner.may_load.set()
    owner.wait_for_end()
    assert owner.loads == 2 and len(owner.threads) == 1


def test_an_earlier_time_takes_the_place_of_a_later_one(owner):
    owner.ask(3600.0)
    assert owner.loader.is_planned and owner.loader.is_running
    owner.ask(0.0)
    owner.wait_for_end()
    assert owner.loads == 1


def test_what_is_not_wanted_any_more_is_not_loaded(owner):
    owner.wanted = 0
    owner.ask(0.0)
    owner.wait_for_end()
    assert (owner.loads, owner.ends) == (0, 0) and not owner.loader.is_planned


def test_the_end_does_not_wait_for_what_is_planned_and_is_told_to_its_owner(owner):
    owner.ask(3600.0)
    owner.stopping.set()
    owner.wait_for_end()
    assert (owner.loads, owner.ends) == (0, 1)
    owner.ask(0.0)
    assert not owner.loader.is_running, "nothing begins after the end"
