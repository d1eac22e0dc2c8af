"""Where the server has put the microphone's stream, and whether that is our own voice."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from engine.audio import pulse_modules
from engine.audio.own_voice import OwnVoiceGuard
from engine.audio.pulse_modules import OwnStreams, own_streams
from engine.errors import VoiceOutError


class Server:
    """Sources, and which of them we listen to; sinks, and which of them we play on."""

    def __init__(self, recorded, *, played=("standin_voice",)):
        self.sources = {"mic", "other", "speakers.monitor", "standin_voice.monitor", "standin_microphone"}
        self.recorded, self.played, self.error = {recorded}, played, None

    def __call__(self):
        if self.error is not None:
            raise self.error
        return OwnStreams(
            recorded=frozenset(self.recorded), played=frozenset(self.played), sources=frozenset(self.sources)
        )


@pytest.mark.parametrize(
    ("source", "played", "expected"),
    [
        ("mic", ("speakers",), False),
        ("speakers.monitor", ("standin_voice",), False),  # somebody chose that
        ("speakers.monitor", ("speakers",), True),
        ("standin_microphone", ("standin_voice",), True),
        ("standin_microphone_2", ("standin_voice",), True),
        ("standin_voice.monitor", ("speakers",), True),
    ],
)
def test_own_voice_is_known(source, played, expected):
    assert OwnVoiceGuard(Server(source, played=played)).look() is expected


@pytest.mark.parametrize("to", ["speakers.monitor", "standin_microphone"])
def test_what_comes_in_place_of_a_microphone_that_vanished(to):
    server = Server("mic")
    guard = OwnVoiceGuard(server)
    assert not guard.look()
    server.recorded = {"other"}
    server.sources -= {"mic"}
    assert not guard.look(), "another microphone is one"
    server.sources -= {"other"}
    server.recorded = {to}
    assert guard.look() and guard.look() and not guard.has_choice()
    server.sources |= {"mic"}
    assert guard.has_choice()


def test_monitor_that_is_chosen_while_the_microphone_is_there_is_followed():
    server = Server("mic")
    guard = OwnVoiceGuard(server)
    assert not guard.look()
    server.recorded = {"speakers.monitor"}
    assert not guard.look()


def test_without_an_answer_nothing_is_held_against_a_microphone():
    """Plain ALSA, or a server that ends and begins again."""
    server = Server("standin_microphone")
    server.error = VoiceOutError("There is no sound server.")
    guard = OwnVoiceGuard(server)
    assert not guard.look() and guard.has_choice()
    server.error = None
    server.recorded = set()
    assert not guard.look()


def _events(text, then="import sys; sys.stdin.read()"):
    """In place of `pactl subscribe`."""
    command = [sys.executable, "-c", f"print({text!r}, flush=True); {then}"]
    return lambda: subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_events_are_followed_until_the_end(tmp_path):
    server, go = Server("mic"), tmp_path / "go"
    wait = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\nprint"
    said = "print(\"Event 'change' on source-output #3\", flush=True); import sys; sys.stdin.read()"
    guard = OwnVoiceGuard(server, _events("Event 'new' on client #1", wait + "()\n" + said))
    guard.start()
    _until(lambda: guard._chosen)
    assert not guard.is_hearing_itself
    server.recorded = {"standin_microphone"}
    go.touch()
    _until(lambda: guard.is_hearing_itself)
    guard.end()
    guard._thread.join(10)
    assert not guard._thread.is_alive() and guard._events is None


def test_server_that_ends_is_asked_again_and_so_is_one_that_is_not_there():
    server, asked = Server("mic"), []
    answers = [OSError("no pactl"), _events("", "pass"), _events("")]

    def subscribe():
        asked.append(1)
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer()

    guard = OwnVoiceGuard(server, subscribe, again_after_s=0.01)
    guard.start()
    _until(lambda: len(asked) == 3)
    server.recorded = {"standin_microphone"}
    guard.end()
    guard._thread.join(10)
    assert not guard._thread.is_alive()


def _until(condition):
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def _stream(number, kind, device, pid, name="ALSA Capture"):
    return (
        f"{kind} Output #{number}\n\tDriver: protocol-native.c\n\t{kind}: {device}\n\tProperties:\n"
        f'\t\tmedia.name = "{name}"\n\t\tapplication.process.id = "{pid}"\n'
    )


def test_only_streams_of_this_process_are_ours(monkeypatch):
    """As PulseAudio 16 writes them; the sync test hears our own microphone on purpose."""
    ours = os.getpid()
    streams = [
        _stream(1, "Source", 2, ours), _stream(2, "Source", 3, ours + 1), _stream(3, "Source", 4, ours, "Sync test"),
        "Source Output #4\n\tDriver: module-remap-source.c\n\tSource: 3\n\tProperties:\n\t\tmedia.name = \"x\"\n",
    ]  # fmt: skip
    answers = {
        "list short sources": "2\tmic\tx\n3\tother\tx\n4\tstandin_microphone\tx\n",
        "list short sinks": "7\tspeakers\tx\n",
        "list source-outputs": "\n".join(streams),
        "list sink-inputs": _stream(1, "Sink", 7, ours),
    }
    monkeypatch.setattr(pulse_modules, "_asked", lambda *words: answers[" ".join(words)])
    found = own_streams()
    assert found.recorded == {"mic"} and found.played == {"speakers"}
    assert found.sources == {"mic", "other", "standin_microphone"}


@pytest.mark.parametrize("questions", range(5))
def test_microphone_that_vanishes_between_two_questions_was_not_given_up_by_choice(monkeypatch, questions):
    """The server puts our stream on the monitor that is left while it is being asked."""
    asked = []

    def answer(*words):
        asked.append(words)
        has_vanished = len(asked) > questions
        answers = {
            "list short sources": ("" if has_vanished else "2\tmic\tx\n") + "3\tfeed.monitor\tx\n",
            "list short sinks": "7\tspeakers\tx\n",
            "list source-outputs": _stream(1, "Source", 3 if has_vanished else 2, os.getpid()),
            "list sink-inputs": _stream(1, "Sink", 7, os.getpid()),
        }
        return answers[" ".join(words)]

    monkeypatch.setattr(pulse_modules, "_asked", answer)
    guard = OwnVoiceGuard(Server("mic", played=("speakers",)))
    assert not guard.look()
    guard._streams = own_streams
    guard.look()
    assert guard.look(), "nobody chose that monitor"
