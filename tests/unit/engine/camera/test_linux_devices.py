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

    def keeps_format(self, path: Path) -> bool:
        return path.name in KEPT

    def pictures_flow(self, path: Path) -> bool:
        return path.name in FLOWING


ANSWERS: dict = {}
KEPT: set[str] = set()
FLOWING: set[str] = set()


@pytest.fixture
def machine(tmp_path):
    """`machine({"video0": answer}, ...)` is a system with these devices."""

    def build(devices, *, has_module=True, is_installed=True, exclusive_caps="Y", fed_by=(), open_in=()):
        ANSWERS.clear()
        KEPT.clear()
        FLOWING.clear()
        FLOWING.update(device for _, device in fed_by)
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
        for number, (name, device) in enumerate([*fed_by, *open_in]):
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


def _tell(system, name: str, **attributes: str):
    """What the driver writes into sysfs beside a device's name."""
    for attribute, text in attributes.items():
        (system.sys / "class/video4linux" / name / attribute).write_text(text)


def test_a_new_driver_tells_that_a_plain_device_is_being_fed(machine):
    system = machine({"video0": _loopback(OUTPUT | CAPTURE)}, open_in=[("ffmpeg", "video0"), ("python3", "video0")])
    _tell(system, "video0", state="output\n")
    assert list_linux_cameras(system)[1] is None
    _tell(system, "video0", state="capture\n")
    (system.proc / "900000" / "maps").write_text(f"7f00-7f01 rw-s 00000000 00:05 3 {system.dev}/video0\n")
    (system.proc / "900001" / "cmdline").write_bytes(b"/usr/bin/python3\0-m\0engine.camera.process\0{}")
    reason = list_linux_cameras(system)[1]
    assert reason.code == "camera.busy" and reason.message.endswith("fed by Standin (900001).")


def test_a_kept_format_is_not_taken_for_a_producer(machine):
    system = machine({"video0": _loopback(CAPTURE)})
    _tell(system, "video0", state="capture\n")
    assert list_linux_cameras(system)[1].code == "camera.busy"
    KEPT.add("video0")
    reason = list_linux_cameras(system)[1]
    assert reason.code == "camera.format_kept" and "keep_format=0" in reason.hint


def test_an_old_driver_is_fed_only_while_pictures_flow(machine):
    """A watcher that outlives its producer keeps the device capture-only, and nobody feeds it."""
    system = machine({"video0": _loopback(CAPTURE)}, open_in=[("chromium", "video0")])
    _tell(system, "video0", format="YU12:640x360@25\n")
    assert list_linux_cameras(system)[0][0].problem.code == "camera.no_output"
    FLOWING.add("video0")
    assert list_linux_cameras(system)[0][0].problem.code == "camera.busy"
    _tell(system, "video0", format="")
    assert list_linux_cameras(system)[0][0].problem.code == "camera.no_output"


def test_an_old_driver_without_exclusive_caps_is_not_fed_twice(machine):
    system = machine({"video0": _loopback(OUTPUT | CAPTURE)}, fed_by=[("obs", "video0")])
    assert "obs (900000)" in list_linux_cameras(system)[1].message
    FLOWING.clear()
    assert list_linux_cameras(system)[1] is None


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
    assert request(3, 27, 8) == v4l2.VIDIOC_G_CTRL
