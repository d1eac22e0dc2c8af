"""The client on engines that behave, talk nonsense, fall silent, refuse and die: told in words, restarted in time."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import psutil
import pytest

from engine.protocol import messages as m


@pytest.fixture
def quick():
    from app.engine_client.client import Timeouts

    return Timeouts(first_pause_ms=20, longest_pause_ms=160)


def test_ready_then_replies_in_their_own_order(qtbot, make_client):
    client = make_client()
    with qtbot.waitSignal(client.ready) as ready:
        client.start()
    assert ready.args[0].pid == client.pid
    replies = []
    client.send(m.Ping, lambda error: replies.append(("ping", error)))
    client.send(m.SetMuted, lambda error: replies.append(("mute", error and error.code)), is_muted=True)
    qtbot.waitUntil(lambda: replies == [("ping", None), ("mute", "session.none")])


def test_garbage_is_passed_over(qtbot, make_client):
    client = make_client("garbage")
    lost, replies = [], []
    client.lost.connect(lambda reason, _pause: lost.append(reason))
    with qtbot.waitSignal(client.ready):
        client.start()
    client.send(m.Ping, replies.append)
    qtbot.waitUntil(lambda: replies == [None])
    assert lost == []


def test_an_engine_of_another_version_is_told_and_left_alone(qtbot, make_client):
    client = make_client("other_version")
    ready = []
    client.ready.connect(ready.append)
    with qtbot.waitSignal(client.noticed) as noticed, qtbot.assertNotEmitted(client.lost, wait=300):
        client.start()
    event = noticed.args[0]
    assert event.is_error and event.reason.code == "engine.version"
    assert event.reason.message == "The engine belongs to another version of Standin." and event.reason.hint
    assert ready == []


def test_errors_reach_the_one_who_asked(qtbot, make_client):
    client = make_client("refuses")
    with qtbot.waitSignal(client.ready):
        client.start()
    errors = []
    client.send(m.TakeSnapshot, errors.append, path="x.png")
    qtbot.waitUntil(lambda: len(errors) == 1)
    assert (errors[0].code, errors[0].message) == ("test.refused", "The test refuses that.")


def test_an_engine_that_never_speaks_is_ended_and_started_again(qtbot, make_client, quick):
    client = make_client("silent", replace(quick, hello_within_ms=300))
    with qtbot.waitSignals([client.lost, client.lost], timeout=10_000):
        client.start()


def test_an_engine_that_falls_silent_is_ended(qtbot, make_client, quick):
    client = make_client("deaf", replace(quick, ping_every_ms=50, silent_pings=2))
    with qtbot.waitSignal(client.ready):
        client.start()
    pid, errors = client.pid, []
    client.send(m.Stop, errors.append)
    with qtbot.waitSignal(client.lost):
        pass
    assert not psutil.pid_exists(pid)
    assert errors[0].code == "engine.lost", "whoever waits is told"


def test_an_engine_that_answers_pings_is_left_alone(qtbot, make_client, quick, commands):
    """More pings than may be left unanswered, and so many that a busy computer may be slow."""
    client = make_client("obedient", replace(quick, ping_every_ms=20, silent_pings=250))
    lost = []
    client.lost.connect(lambda reason, _pause: lost.append(reason))
    with qtbot.waitSignal(client.ready):
        client.start()
    qtbot.waitUntil(lambda: bool(lost) or len(commands.of(m.Ping)) > 250, timeout=60_000)
    assert lost == []


def test_the_pause_doubles_to_its_limit_and_traces_stay_out_of_the_words(qtbot, make_client, caplog):
    client = make_client("dies")
    losses = []
    client.lost.connect(lambda reason, pause_ms: losses.append((reason, pause_ms)))
    client.ready.connect(lambda _hello: client.send(m.Start, settings=_session()))
    client.start()
    qtbot.waitUntil(lambda: len(losses) == 5, timeout=60_000)
    assert [pause for _reason, pause in losses] == [20, 40, 80, 160, 160]
    reason = losses[0][0]
    assert (reason.code, reason.message) == ("engine.ended", "The engine ended with code 1.")
    assert reason.hint == "It is being started again."
    assert "told to die" in reason.detail, "the log keeps the last words"
    assert "Traceback" not in reason.message + reason.hint


def test_the_pause_is_short_again_after_a_healthy_while(qtbot, make_client, quick):
    client = make_client("obedient", replace(quick, healthy_after_ms=100))
    pauses = []
    client.lost.connect(lambda _reason, pause_ms: pauses.append(pause_ms))
    for begin in (client.start, lambda: None):
        with qtbot.waitSignal(client.ready):
            begin()
        qtbot.wait(300)
        with qtbot.waitSignal(client.lost):
            os.kill(client.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    assert pauses == [20, 20]


def test_a_closed_client_starts_nothing_and_says_nothing(qtbot, make_client):
    client = make_client("dies")
    told = []
    with qtbot.waitSignal(client.ready):
        client.start()
    client.lost.connect(lambda *_: told.append("lost"))
    client.send(m.Start, lambda _error: told.append("reply"), settings=_session())
    with qtbot.waitSignal(client.closed):
        client.close()
    qtbot.wait(200)
    assert told == [] and client.pid == 0


def test_a_command_without_an_engine_is_answered(make_client):
    errors = []
    make_client().send(m.Ping, errors.append)
    assert errors[0].code == "engine.lost"


def _session():
    from engine.settings import SessionSettings

    return SessionSettings(portrait="sample:")
