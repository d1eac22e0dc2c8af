"""What a session does about its microphone: each thing told once, nothing taken that is not wanted any more."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from engine.clock import ManualClock
from engine.settings import FileSource, MicrophoneSource
from engine.stream import microphone_watch
from engine.stream.microphone_watch import MicrophoneWatch

YETI = MicrophoneSource(name="Yeti")


class Host:
    """Notes what the watch asks for."""

    def __init__(self):
        self.told, self.rested, self.waiters, self.will_take = [], 0, [], True
        self.has_voice, self.guards = False, []

    def is_voice_played(self):
        return self.has_voice

    def guard(self):
        made = SimpleNamespace(is_hearing_itself=False, calls=[])
        made.start, made.end = (lambda: made.calls.append("start")), (lambda: made.calls.append("end"))
        self.guards.append(made)
        return made

    def tell(self, reason, *, is_error):
        self.told.append((reason.code, is_error))

    def rest(self):
        self.rested += 1

    def open_again(self, wanted):
        return wanted

    def renew(self):
        pass

    def take_back(self, source, waiter):
        if self.will_take:
            self.watch.taken_back()
        return self.will_take

    def follow_default(self, wanted):
        self.followed = wanted

    def waiter(self, wanted, clock, **does):
        made = SimpleNamespace(wanted=wanted, is_cancelled=False, is_started=False, **does)
        made.cancel = lambda: setattr(made, "is_cancelled", True)
        made.start = lambda: setattr(made, "is_started", True)
        self.waiters.append(made)
        return made


@pytest.fixture
def host():
    made = Host()
    made.watch = MicrophoneWatch(made, ManualClock(), waiter=made.waiter, guard=made.guard)
    return made


def _listener(*, has_ended=False, zero_s=0.0):
    return SimpleNamespace(source=SimpleNamespace(label="Yeti", has_ended=has_ended), zero_s=zero_s)


def test_lost_is_told_once_waited_for_and_told_when_back(host, plain_source):
    host.watch.begin(YETI)
    host.watch.look(_listener())
    assert not host.told
    for _ in range(3):
        host.watch.look(_listener(has_ended=True))
    assert host.told == [("microphone.lost", True)] and host.rested == 1
    (waiter,) = host.waiters
    assert waiter.is_started and waiter.wanted == YETI and waiter.open_again() == YETI
    waiter.take(plain_source())
    assert host.told[1:] == [("microphone.back", False)] and not host.watch.is_waiting
    host.watch.look(_listener(has_ended=True))
    assert len(host.waiters) == 2, "and again, if it goes again"


def test_one_that_is_not_wanted_any_more_is_given_back(host, plain_source):
    host.watch.begin(YETI)
    host.watch.look(_listener(has_ended=True))
    host.will_take = False
    source = plain_source()
    host.waiters[0].take(source)
    assert source.stopped == 1 and [code for code, _ in host.told] == ["microphone.lost"]


@pytest.mark.parametrize("other", [MicrophoneSource(name="Headset"), FileSource(path="a.wav")])
def test_another_source_ends_the_waiting(host, other):
    host.watch.begin(YETI)
    host.watch.look(_listener(has_ended=True))
    host.watch.begin(other)
    assert host.waiters[0].is_cancelled and not host.watch.is_waiting


def test_exact_zeros_are_explained_once_for_each_source(host):
    host.watch.begin(YETI)
    host.watch.look(_listener(zero_s=2.9))
    assert not host.told
    for _ in range(3):
        host.watch.look(_listener(zero_s=3.1))
    assert host.told == [("microphone.all_zero", False)]
    host.watch.begin(YETI)
    host.watch.look(_listener(zero_s=3.1))
    assert len(host.told) == 2


def test_end_of_a_file_is_none_of_its_business(host):
    host.watch.begin(FileSource(path="a.wav"))
    host.watch.look(_listener(has_ended=True, zero_s=60.0))
    assert not host.told and not host.waiters


def test_closed_around_a_change_it_is_waited_for_without_an_error(host):
    host.watch.wait(YETI)
    assert host.watch.is_waiting and not host.told and host.rested == 1


def test_microphone_that_is_not_there_yet_is_told_and_waited_for(host):
    host.watch.begin_without(YETI)
    assert host.told == [("microphone.lost", True)] and host.rested == 1 and host.waiters[0].is_started
    host.waiters[0].take(SimpleNamespace(label="Yeti"))
    assert host.told[1] == ("microphone.back", False) and not host.watch.is_waiting


@pytest.fixture
def _can_move(monkeypatch):
    """A system with a server that moves streams."""
    monkeypatch.setattr(microphone_watch.OwnVoiceGuard, "is_needed", staticmethod(lambda: True))


@pytest.mark.usefixtures("_can_move")
def test_own_voice_in_place_of_the_microphone_is_a_lost_microphone(host):
    host.watch.begin(YETI)
    host.watch.look(_listener())
    assert not host.guards, "nobody hears it"
    host.has_voice = True
    host.watch.look(_listener())
    host.watch.look(_listener())
    (guard,) = host.guards
    assert guard.calls == ["start"] and not host.told
    guard.is_hearing_itself = True
    host.watch.look(_listener())
    host.watch.look(_listener())
    assert host.told == [("microphone.lost", True)] and host.rested == 1
    assert host.waiters[0].guard is guard and guard.calls == ["start", "end"]
    host.waiters[0].take(SimpleNamespace(label="Yeti"))
    host.watch.look(_listener())
    assert len(host.guards) == 2 and not host.watch.is_waiting, "another one from then on"
    host.watch.end()
    assert host.guards[1].calls == ["start", "end"]
