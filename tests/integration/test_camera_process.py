"""The camera process with backends of the tests' own: good, slow, hanging, dying, refusing."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from engine.errors import CameraError
from engine.media import CanvasFormat
from engine.settings import CameraSettings
from engine.sinks import virtual_camera
from engine.sinks.base import PresentedFrame
from engine.sinks.mailbox import Mailbox
from engine.sinks.virtual_camera import open_camera

CANVAS = CanvasFormat(width=64, height=36, fps=25)

BACKENDS = """
import os, time
from pathlib import Path
from engine.errors import CameraError

class Good:
    def __init__(self, device, width, height, fps):
        self.label, self.device = "Test Camera", device
        self.file = open(device, "a", buffering=1)
        self.file.write(f"open {width}x{height} {fps} {os.getpid()}\\n")
    def send(self, image):
        self.file.write(f"frame {image[0, 0, 0]}\\n")
    def close(self):
        self.file.write("close\\n")

class Hanging(Good):
    def send(self, image):
        super().send(image)
        if image[0, 0, 0] == 99:
            time.sleep(3600)

class Dying(Good):
    def send(self, image):
        super().send(image)
        if image[0, 0, 0] == 99:
            os._exit(7)

class Refusing(Good):
    def __init__(self, *_):
        raise CameraError("The camera is taken.", code="camera.busy", hint="Close the other program.")

class Failing(Good):
    def send(self, image):
        super().send(image)
        if image[0, 0, 0] == 99:
            raise CameraError("The camera was unplugged.", code="camera.write", hint="Plug it in.")

class Full(Good):
    dropped = 0
    def send(self, image):
        self.dropped += 1

class Stuck(Good):
    def __init__(self, *_):
        time.sleep(3600)

class Noisy(Good):
    def send(self, image):
        print("a driver talks to standard output")
        super().send(image)
"""


@pytest.fixture
def device(tmp_path, monkeypatch):
    """A file that a backend writes what happens to it into; backends come from a module on the path."""
    (tmp_path / "camera_test_backends.py").write_text(BACKENDS)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.getcwd()}")
    monkeypatch.setattr(virtual_camera, "_HANGS_AFTER_S", 1.5)
    return tmp_path / "device"


def _camera(device, kind):
    return open_camera(CameraSettings(device=str(device), backend=f"camera_test_backends:{kind}"))


def _frame(value: int) -> PresentedFrame:
    return PresentedFrame(image=np.full((36, 64, 3), value, np.uint8), tick=value, frame=value, due_s=0.0)


def _feed(camera, values, gap_s=0.04):
    for value in values:
        camera.send(_frame(value))
        time.sleep(gap_s)


def _lines(device: Path) -> list[str]:
    return device.read_text().splitlines()


def _wait(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def test_frames_arrive_in_order_and_the_device_is_given_back(device):
    camera = _camera(device, "Good")
    camera.open(CANVAS)
    _feed(camera, range(1, 26))
    _wait(lambda: "frame 25" in _lines(device))
    camera.close()
    lines = _lines(device)
    assert lines[0].startswith("open 64x36 25 ") and lines[-1] == "close"
    values = [int(line.split()[1]) for line in lines if line.startswith("frame")]
    assert values == sorted(set(values)) and len(values) >= 20


def test_pictures_that_the_camera_has_no_room_for_are_not_counted_as_sent(device):
    box = Mailbox(_camera(device, "Full"), CANVAS)
    box.wait_opened(60)
    for value in range(1, 6):
        box.put(_frame(value))
        time.sleep(0.04)

    def has_told():
        box.put(_frame(6))
        return box.stats().dropped >= 4

    _wait(has_told)
    stats = box.stats()
    assert stats.sent + stats.dropped == box._sent + box._dropped and stats.sent < stats.dropped
    box.close()


def test_pictures_that_find_no_process_are_counted(device, monkeypatch):
    monkeypatch.setattr(virtual_camera, "_RESTART_AFTER_S", (60.0,))
    camera = _camera(device, "Dying")
    camera.open(CANVAS)
    _feed(camera, [1])
    child = camera._child
    camera._memory.write(_frame(99).image, extra=99)
    child.notify(99)
    child._process.wait(10)
    _feed(camera, [3, 4, 5, 6, 7, 8])
    # The first of them finds out. Of 99 nobody tells, since its process died before it could.
    assert (camera.lost, camera.restarts) == (5, 1)
    camera.close()


def test_a_driver_that_prints_does_no_harm(device):
    camera = _camera(device, "Noisy")
    camera.open(CANVAS)
    _feed(camera, range(1, 6))
    _wait(lambda: "frame 5" in _lines(device))
    assert camera.restarts == 0
    camera.close()


def test_refusal_is_the_backends_own_sentence(device):
    camera = _camera(device, "Refusing")
    with pytest.raises(CameraError) as caught:
        camera.open(CANVAS)
    assert (caught.value.code, caught.value.message) == ("camera.busy", "The camera is taken.")
    camera.close()


def test_a_driver_that_hangs_as_it_opens_is_named_and_a_slow_start_is_not_its_fault(device, monkeypatch):
    camera = _camera(device, "Stuck")
    monkeypatch.setattr(virtual_camera, "_OPEN_TIMEOUT_S", 0.2)
    with pytest.raises(CameraError, match=r"did not open within 0\.2 seconds"):
        camera.open(CANVAS)
    camera.close()
    camera = _camera(device, "Good")
    monkeypatch.setattr(virtual_camera, "_START_TIMEOUT_S", 0.001)
    with pytest.raises(CameraError, match="process did not start") as caught:
        camera.open(CANVAS)
    assert "busy" in caught.value.hint
    camera.close()


def test_an_engine_that_stood_still_does_not_take_the_driver_for_hanging(device):
    camera = _camera(device, "Good")
    camera.open(CANVAS)
    _feed(camera, [1, 2])
    time.sleep(virtual_camera._HANGS_AFTER_S + 0.5)
    _feed(camera, [3, 4])
    _wait(lambda: "frame 4" in _lines(device))
    assert camera.restarts == 0
    camera.close()


def test_what_a_process_says_before_it_ends_is_the_reason(device):
    camera = _camera(device, "Failing")
    camera.open(CANVAS)
    _feed(camera, [1, 2], gap_s=0.1)
    child = camera._child
    camera._memory.write(_frame(99).image, extra=99)
    child.notify(99)
    child._process.wait(10)
    reason = child.trouble(time.monotonic())  # at once, while its last line may still be on its way
    assert (reason.code, reason.message) == ("camera.write", "The camera was unplugged.")
    camera.close()


@pytest.mark.parametrize("kind", ["Hanging", "Dying"])
def test_a_hanging_or_dying_process_is_replaced_while_frames_keep_coming(device, kind):
    camera = _camera(device, kind)
    camera.open(CANVAS)
    _feed(camera, [1, 2, 99])
    _wait(lambda: "frame 99" in _lines(device))
    slowest_s = 0.0
    deadline = time.monotonic() + 60
    while sum(line.startswith("open") for line in _lines(device)) < 2 or _lines(device)[-1] != "frame 5":
        started = time.monotonic()
        camera.send(_frame(5))
        slowest_s = max(slowest_s, time.monotonic() - started)
        assert time.monotonic() < deadline
        time.sleep(0.04)
    assert camera.restarts == 1
    camera.close()
    pids = [int(line.split()[3]) for line in _lines(device) if line.startswith("open")]
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_the_camera_is_released_when_the_engine_is_killed(device, tmp_path):
    script = f"""
        import os, signal, time
        import numpy as np
        from engine.media import CanvasFormat
        from engine.settings import CameraSettings
        from engine.sinks.base import PresentedFrame
        from engine.sinks.virtual_camera import open_camera
        camera = open_camera(CameraSettings(device={str(device)!r}, backend="camera_test_backends:Good"))
        camera.open(CanvasFormat(width=64, height=36, fps=25))
        for value in range(1, 10):
            image = np.full((36, 64, 3), value, np.uint8)
            camera.send(PresentedFrame(image=image, tick=value, frame=value, due_s=0.0))
            time.sleep(0.04)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], timeout=30, stderr=subprocess.DEVNULL)
    _wait(lambda: _lines(device)[-1] == "close")
    pid = int(_lines(device)[0].split()[3])
    _wait(lambda: not psutil.pid_exists(pid))
    assert _lines(device).count("close") == 1


def test_many_cycles_leave_no_process_and_no_descriptor(device):
    own = psutil.Process()
    before = own.num_fds() if hasattr(own, "num_fds") else 0
    others = set(own.children())
    for _ in range(3):
        camera = _camera(device, "Good")
        camera.open(CANVAS)
        _feed(camera, [1, 2])
        camera.close()
    left = set(own.children()) - others
    assert all("resource_tracker" in " ".join(child.cmdline()) for child in left)
    assert not hasattr(own, "num_fds") or own.num_fds() <= before + 2


def test_the_camera_process_has_no_connection(device):
    camera = _camera(device, "Good")
    camera.open(CANVAS)
    _feed(camera, range(1, 6))
    _wait(lambda: len(_lines(device)) > 1)
    pid = int(_lines(device)[0].split()[3])
    assert pid != os.getpid() and psutil.Process(pid).net_connections(kind="inet") == []
    camera.close()
