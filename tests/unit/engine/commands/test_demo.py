"""`standin demo`: into the first camera that works, or says why there is none."""

from __future__ import annotations

import argparse
import re

import pytest

from engine.commands import demo
from engine.protocol.messages import CameraDevice, Reason
from engine.settings import CameraSettings
from engine.sinks import virtual_camera

BUSY = CameraDevice(
    device="/dev/video1", label="A", backend="v4l2", problem=Reason(code="camera.busy", message="In use.", hint="Wait.")
)
READY = CameraDevice(device="/dev/video2", label="B", backend="v4l2")
NO_DRIVER = Reason(code="camera.no_driver", message="No driver.", hint="Install it.")


@pytest.fixture
def shown(monkeypatch, capsys):
    """(settings of the session, printed text) with given cameras."""

    def run(cameras, reason=None, **options):
        sessions = []
        monkeypatch.setattr(virtual_camera, "list_cameras", lambda: (cameras, reason))
        monkeypatch.setattr(demo, "run_session", lambda settings, seconds: sessions.append(settings) or 0)
        arguments = {"out": None, "portrait": "sample:", "audio": None, **options}
        assert demo.run(argparse.Namespace(**arguments)) == 0
        return sessions[0], capsys.readouterr().out

    return run


def test_first_camera_that_works_is_used(shown):
    settings, out = shown([BUSY, READY])
    assert settings.camera == CameraSettings(device="/dev/video2", backend="v4l2") and "No virtual camera" not in out


@pytest.mark.parametrize(
    ("cameras", "reason", "words"),
    [([], NO_DRIVER, "No driver. Install it."), ([BUSY], None, "In use. Wait."), ([], None, None)],
)
def test_without_a_camera_the_clip_is_made_and_the_reason_said(shown, cameras, reason, words):
    settings, out = shown(cameras, reason)
    assert settings.camera is None and settings.recording
    assert words is None or f"only the clip is made. {words}" in out


def test_clip_has_a_new_name_in_the_recordings_folder_and_is_told(shown):
    settings, out = shown([])
    assert re.search(r"Standin \d{4}-\d\d-\d\d \d\d\.\d\d\.\d\d\.mp4$", settings.recording)
    assert settings.recording in out and "What to do next" in out


def test_own_portrait_sound_and_place(shown, tmp_path):
    settings, _ = shown([], portrait="me.jpg", audio="talk.wav", out=str(tmp_path / "o.mp4"))
    assert (settings.portrait, settings.source.path, settings.recording) == (
        "me.jpg", "talk.wav", str(tmp_path / "o.mp4"),
    )  # fmt: skip
