"""Where a session's pictures go: preview, cameras, recording, snapshot."""

from __future__ import annotations

import threading

import av
import pytest
from PIL import Image

from engine.errors import CameraError, UsageError
from engine.protocol.messages import CameraChanged, PreviewOpened, RecordingChanged
from engine.protocol.shared_memory import FrameReader
from engine.settings import CameraSettings
from engine.sinks import virtual_camera
from engine.sinks.recorder import Recorder
from engine.stream import outputs


def test_preview_shows_the_generators_pictures(session):
    live = session(has_preview=True)
    live.broadcast.start()
    opened = next(e for e in live.events if isinstance(e, PreviewOpened))
    reader = FrameReader(opened.memory_name)
    assert (opened.width, opened.height) == (reader.width, reader.height) == (640, 360)
    taken = []
    live.until(lambda: taken.append(reader.newest()) or taken[-1] is not None)
    reader.close()


def test_recording_and_snapshot(session, tmp_path):
    live = session()
    live.broadcast.start()
    live.until_presented()
    with pytest.raises(UsageError, match="Nothing"):
        live.broadcast.stop_recording()
    live.broadcast.start_recording(str(tmp_path / "a.mp4"))
    with pytest.raises(UsageError, match="already"):
        live.broadcast.start_recording(str(tmp_path / "b.mp4"))
    live.until_presented(5)
    picture = live.broadcast.take_snapshot(str(tmp_path / "a.png"))
    with Image.open(picture) as image:
        assert image.size == (640, 360)
    live.broadcast.stop_recording()
    changes = [(e.is_recording, e.reason) for e in live.events if isinstance(e, RecordingChanged)]
    assert changes == [(True, None), (False, None)] and (tmp_path / "a.mp4").stat().st_size > 500


def test_a_recording_is_told_of_when_its_file_is_complete(session, tmp_path, monkeypatch):
    """On a disk that is slow the session goes on meanwhile; no other recording can be begun."""
    complete, may_complete = Recorder.close, threading.Event()
    monkeypatch.setattr(outputs, "_COMPLETE_S", 0.05)
    monkeypatch.setattr(Recorder, "close", lambda recorder: (may_complete.wait(20), complete(recorder)))
    live = session()
    live.broadcast.start()
    live.broadcast.start_recording(str(tmp_path / "a.mp4"))
    live.until(lambda: live.broadcast.stats().sinks["recorder"].sent >= 5)
    live.broadcast.stop_recording()

    def changes() -> list[bool]:
        return [e.is_recording for e in live.events if isinstance(e, RecordingChanged)]

    assert changes() == [True] and "output.completing" in live.codes()
    with pytest.raises(UsageError, match="still being completed"):
        live.broadcast.start_recording(str(tmp_path / "b.mp4"))
    may_complete.set()
    live.until(lambda: changes() == [True, False])
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert sum(1 for _ in file.decode(video=0)) >= 5
    live.broadcast.start_recording(str(tmp_path / "b.mp4"))
    live.until_presented(5)


class Camera:
    """A virtual camera that takes everything."""

    name, backend = "camera", "test"

    def __init__(self, device):
        self.device, self.label = device, device.upper()
        self.is_open, self.frames = False, 0

    def open(self, canvas):
        self.is_open = True

    def send(self, frame):
        self.frames += 1

    def close(self):
        self.is_open = False


@pytest.fixture
def cameras(monkeypatch):
    """The cameras that were opened; "a" and "b" exist, each for one at a time."""
    opened = []

    def open_camera(settings):
        device = settings.device or "a"
        if device not in ("a", "b"):
            raise CameraError("There is no such camera.", code="camera.missing")
        if any(c.is_open and c.device == device for c in opened):
            raise CameraError("It is in use.", code="camera.busy")
        opened.append(Camera(device))
        return opened[-1]

    monkeypatch.setattr(virtual_camera, "open_camera", open_camera)
    return opened


def test_camera_of_the_settings_is_fed_and_released(session, cameras):
    live = session(camera=CameraSettings(device="a"))
    live.broadcast.start()
    live.until(lambda: cameras[0].frames >= 3)
    live.broadcast.stop()
    changes = [(e.is_open, e.label) for e in live.events if isinstance(e, CameraChanged)]
    assert changes == [(True, "A"), (False, "")] and not cameras[0].is_open


def test_cameras_change_while_live(session, cameras):
    live = session()
    live.broadcast.start()
    for device in ("a", "b", "b", ""):
        live.broadcast.set_camera(CameraSettings(device=device))
        live.until(lambda: cameras[-1].frames >= 2)
        assert sum(c.is_open for c in cameras) == 1
    live.broadcast.set_camera(None)
    assert [c.device for c in cameras] == ["a", "b", "b", "a"] and not any(c.is_open for c in cameras)


def test_camera_that_does_not_exist_leaves_the_one_in_use(session, cameras):
    live = session(camera=CameraSettings(device="a"))
    live.broadcast.start()
    with pytest.raises(CameraError, match="no such"):
        live.broadcast.set_camera(CameraSettings(device="c"))
    seen = cameras[0].frames
    live.until(lambda: cameras[0].frames >= seen + 2)
    assert cameras[0].is_open


def test_camera_that_fails_is_taken_away_and_the_picture_goes_on(session, cameras):
    live = session(camera=CameraSettings(device="a"), has_preview=True)
    live.broadcast.start()
    live.until(lambda: cameras[0].frames >= 1)

    def fail(frame):
        raise CameraError("It is gone.", code="camera.gone")

    cameras[0].send = fail
    live.until(lambda: any(isinstance(e, CameraChanged) and not e.is_open for e in live.events))
    assert live.codes() == ["camera.gone"] and not cameras[0].is_open
    live.until_presented(3)
    assert set(live.broadcast.stats().sinks) == {"preview"}
