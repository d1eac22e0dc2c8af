"""`standin devices` prints what there is, and why something is not."""

from __future__ import annotations

import argparse
import json

import pytest

from engine.commands import devices
from engine.protocol.messages import AudioDevice, CameraDevice, DevicesListed, Reason

YETI = AudioDevice(name="Blue Yeti", host_api="ALSA", channels=2, rate_hz=48_000, is_default=True)
OUT = AudioDevice(name="Speakers", host_api="ALSA", channels=2, rate_hz=44_100)
READY = CameraDevice(device="/dev/video42", label="Standin Camera", backend="v4l2")
TAKEN = CameraDevice(
    device="/dev/video43",
    label="Other",
    backend="v4l2",
    problem=Reason(code="camera.busy", message="It is in use.", hint="Close it."),
)


@pytest.fixture
def printed(monkeypatch, capsys):
    """What the command prints for a list."""

    def run(as_json=False, **found):
        listed = DevicesListed(**{"microphones": [], "voice_outs": [], "cameras": [], **found})
        monkeypatch.setattr(devices, "list_devices", lambda: listed)
        assert devices.run(argparse.Namespace(json=as_json)) == 0
        return capsys.readouterr().out

    return run


def test_everything_there(printed):
    assert printed(microphones=[YETI], voice_outs=[OUT], cameras=[READY, TAKEN]).splitlines() == [
        "Microphones",
        "  Blue Yeti  [ALSA, 48000 Hz]  (default)",
        "",
        "Sound outputs",
        "  Speakers  [ALSA, 44100 Hz]",
        "",
        "Virtual cameras",
        "  Standin Camera  [/dev/video42, v4l2]  ready",
        "  Other  [/dev/video43, v4l2]  It is in use. Close it.",
    ]


def test_nothing_there_is_said_with_its_reason(printed):
    text = printed(
        audio_reason=Reason(code="a", message="No PortAudio.", hint="Install it."),
        cameras_reason=Reason(code="c", message="No driver."),
    )
    assert text.count("  No PortAudio. Install it.") == 2 and "  No driver." in text
    text = printed()
    assert "No microphone is connected." in text and "No sound output is connected." in text


def test_json_is_the_event(printed):
    found = json.loads(printed(as_json=True, cameras=[TAKEN]))
    assert found["cameras"][0]["problem"]["code"] == "camera.busy" and found["microphones"] == []
