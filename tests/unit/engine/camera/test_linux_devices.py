"""Every state that a Linux virtual camera can be in, from answers that the tests give."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from engine.camera import v4l2
from engine.camera.linux_devices import LinuxSystem, list_linux_cameras, lists_in_browsers
from engine.errors import CameraError
from engine.settings import CameraSettings
from engine.sinks import virtual_camera

OUTPUT, CAPTURE = v4l2.CAP_VIDEO_OUTPUT, v4l2.CAP_VIDEO_CAPTURE


class FakeSystem(LinuxSystem):
    """Device answers come from a table: a capability, or an error number."""

    def capability(self, path: Path) -> v4l2.Capability:
        answer = ANSWERS[path.name]
        if isinstance(answer, int):
            raise OSError(answer, os.strerror(answer))
        return answer


ANSWERS: dict = {}


@pytest.fixture
def machine(tmp_path):
    """`machine({"video0": answer}, ...)` is a system with these devices."""

    def build(devices, *, has_module=True, is_installed=True, exclusive_caps="Y", fed_by=()):
        ANSWERS.clear()
        ANSWERS.update(devices)
        for name in devices:
            real = tmp_path / "sys/devices/virtual/video4linux" / name
            real.mkdir(parents=True)
            (real / "name").write_text("Standin\n")
            (tmp_path / "sys/class/video4linux").mkdir(parents=True, exist_ok=True)
            (tmp_path / "sys/class/video4linux" / name).symlink_to(real)
        if has_module:
            parameters = tmp_path / "sys/module/v4l2loopback/parameters"
            parameters.mkdir(parents=True)
            (parameters / "exclusive_caps").write_text(exclusive_caps)
            (parameters / "video_nr").write_text("0,1")
        modules = tmp_path / "modules/updates"
        modules.mkdir(parents=True)
        if is_installed:
            (modules / "v4l2loopback.ko.xz").touch()
        (tmp_path / "dev").mkdir()
        for number, (name, device) in enumerate(fed_by):
            process = tmp_path / "proc" / str(900000 + number)
            (process / "fd").mkdir(parents=True)
            (process / "comm").write_text(f"{name}\n")
            (process / "fd" / "3").symlink_to(tmp_path / "dev" / device)
        return FakeSystem(
            sys=tmp_path / "sys", dev=tmp_path / "dev", proc=tmp_path / "proc", modules=tmp_path / "modules"
        )

    return build


def _loopback(caps) -> v4l2.Capability:
    return v4l2.Capability(driver="v4l2 loopback", card="Standin Camera", caps=caps)


def test_free_device_is_ready_with_its_label(machine):
    cameras, reason = list_linux_cameras(machine({"video0": _loopback(OUTPUT)}))
    assert reason is None
    assert (cameras[0].label, cameras[0].problem, cameras[0].backend) == ("Standin Camera", None, "v4l2")


def test_real_webcam_is_not_offered(machine):
    webcam = v4l2.Capability(driver="uvcvideo", card="Webcam", caps=CAPTURE)
    cameras, reason = list_linux_cameras(machine({"video0": webcam}))
    assert cameras == [] and reason is not None and reason.code == "camera.no_device"


def test_busy_device_names_who_feeds_it(machine):
    system = machine({"video0": _loopback(CAPTURE)}, fed_by=[("obs", "video0")])
    cameras, reason = list_linux_cameras(system)
    assert cameras[0].problem.code == reason.code == "camera.busy" and "obs (900000)" in reason.message


def test_capture_only_without_a_feeder_is_the_reopen_bug(machine):
    cameras, _ = list_linux_cameras(machine({"video0": _loopback(CAPTURE)}))
    assert cameras[0].problem.code == "camera.no_output"


@pytest.mark.parametrize(
    ("number", "code"), [(errno.EACCES, "camera.permission"), (errno.EBUSY, "camera.busy"), (errno.EIO, "camera.setup")]
)
def test_device_that_cannot_be_opened(machine, number, code):
    cameras, reason = list_linux_cameras(machine({"video0": number}))
    assert cameras[0].problem.code == code and reason.hint


def test_one_good_device_is_enough(machine):
    cameras, reason = list_linux_cameras(machine({"video0": errno.EACCES, "video1": _loopback(OUTPUT)}))
    assert reason is None and [camera.problem is None for camera in cameras] == [False, True]


@pytest.mark.parametrize(
    ("has_module", "is_installed", "code"),
    [(True, True, "camera.no_device"), (False, True, "camera.not_loaded"), (False, False, "camera.no_driver")],
)
def test_no_device_at_all(machine, has_module, is_installed, code):
    cameras, reason = list_linux_cameras(machine({}, has_module=has_module, is_installed=is_installed))
    assert cameras == [] and reason.code == code and "modprobe" in reason.hint


@pytest.mark.parametrize(("flags", "listed"), [("Y,N", True), ("N,N", False), ("N,Y", False), ("", True)])
def test_browsers_need_exclusive_caps(machine, flags, listed):
    system = machine({"video0": _loopback(OUTPUT)}, exclusive_caps=flags)
    assert lists_in_browsers("/dev/video0", system) is listed


def test_opening_names_the_cause(machine, monkeypatch):
    system = machine({"video0": errno.EACCES})
    monkeypatch.setattr(virtual_camera, "list_cameras", lambda: list_linux_cameras(system))
    for device, code in (("", "camera.permission"), ("/dev/video7", "camera.missing")):
        with pytest.raises(CameraError) as caught:
            virtual_camera.open_camera(CameraSettings(device=device))
        assert caught.value.code == code and caught.value.hint


def test_forgotten_output_is_repaired_before_opening(machine, monkeypatch):
    repaired = []
    system = machine({"video0": _loopback(CAPTURE)})
    monkeypatch.setattr(virtual_camera, "list_cameras", lambda: list_linux_cameras(system))
    monkeypatch.setattr(virtual_camera.v4l2, "repair_loopback", repaired.append)
    camera = virtual_camera.open_camera(CameraSettings())
    assert repaired == [camera.device] and camera.backend == "v4l2"


def test_request_numbers_match_the_kernels_formula():
    """_IOC(direction, 'V', number, size): direction in bits 30..31, size in 16..29, type in 8..15, number in 0..7."""

    def request(direction, number, size):
        return direction << 30 | size << 16 | ord("V") << 8 | number

    assert request(2, 0, 104) == v4l2.VIDIOC_QUERYCAP
    assert request(3, 5, 208) == v4l2.VIDIOC_S_FMT and request(3, 4, 208) == v4l2.VIDIOC_G_FMT
    assert request(3, 22, 204) == v4l2.VIDIOC_S_PARM and request(1, 18, 4) == v4l2.VIDIOC_STREAMON
