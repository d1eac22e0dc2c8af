"""`standin sync` asks for the right devices and says what was found, with its sign."""

from __future__ import annotations

import json

import pytest

from engine.cli import main
from engine.commands import sync
from engine.errors import DeviceError
from engine.protocol.messages import SyncMeasured
from engine.settings import MicrophoneSource, VoiceOutSettings

EARLY = SyncMeasured(offset_ms=52.4, spread_ms=1.2, played=8, heard=7, correction_ms=52.4, is_stored=True)


@pytest.fixture
def asked(monkeypatch):
    """What the test was made with; `found` is what it says, an exception is raised."""
    made = {"found": EARLY}

    class Test:
        def __init__(self, voice_out, microphone, *, seconds, is_stored):
            made.update(voice_out=voice_out, microphone=microphone, seconds=seconds, is_stored=is_stored)

        def run(self, progress):
            progress.update("sync test", 8.0, 8.0, "s")
            if isinstance(made["found"], Exception):
                raise made["found"]
            return made["found"]

    monkeypatch.setattr(sync, "SyncTest", Test)
    return made


@pytest.mark.parametrize(
    ("words", "voice_out", "microphone"),
    [
        ([], VoiceOutSettings(name="standin:virtual"), None),
        (["--mic", "Yeti"], VoiceOutSettings(name="standin:virtual"), MicrophoneSource(name="Yeti")),
        (["--voice-out", "default"], VoiceOutSettings(), MicrophoneSource()),
        (
            ["--voice-out", "A", "--voice-out-api", "MME", "--mic", "default", "--mic-api", "WASAPI"],
            VoiceOutSettings(name="A", host_api="MME"),
            MicrophoneSource(host_api="WASAPI"),
        ),
    ],
)
def test_devices_are_taken_as_named(asked, words, voice_out, microphone):
    assert main(["sync", *words]) == 0
    assert (asked["voice_out"], asked["microphone"]) == (voice_out, microphone)
    assert asked["seconds"] == 8.0 and asked["is_stored"]


def test_early_sound_is_said_with_a_plus_and_what_was_stored(asked, capsys):
    assert main(["sync"]) == 0
    out = capsys.readouterr().out
    assert "+52 ms" in out and "early" in out and "would notice" in out and "7 of 8" in out
    assert "Stored" in out and "52 ms later" in out


def test_late_sound_is_said_with_a_minus(asked, capsys):
    asked["found"] = SyncMeasured(
        offset_ms=-30.0, spread_ms=1.0, played=8, heard=8, correction_ms=-12.0, is_stored=False
    )
    assert main(["sync", "--no-store"]) == 0
    out = capsys.readouterr().out
    assert "-30 ms" in out and "late" in out and "nobody notices" in out
    assert "Not stored" in out and "12 ms sooner" in out and not asked["is_stored"]


def test_json_is_the_event(asked, capsys):
    assert main(["sync", "--json", "--seconds", "5"]) == 0
    assert json.loads(capsys.readouterr().out)["offset_ms"] == 52.4 and asked["seconds"] == 5.0


def test_nothing_heard_is_a_sentence_and_status_1(asked, capsys):
    asked["found"] = DeviceError("None of it could be heard.", code="sync.not_heard", hint="Turn it up.")
    assert main(["sync"]) == 1
    assert "None of it could be heard. Turn it up." in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["1", "601", "nan", "-8"])
def test_impossible_times_are_refused(asked, seconds):
    assert main(["sync", "--seconds", seconds]) == 2 and "voice_out" not in asked
