"""Whether PipeWire can show a camera, for each thing that can be missing; and which camera is chosen."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import pytest

from engine.camera.pipewire_system import PipewireSystem, pipewire_camera
from engine.errors import CameraError
from engine.protocol.messages import CameraDevice, Reason
from engine.settings import CameraSettings
from engine.sinks import virtual_camera

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="PipeWire is of Linux")

NO_DRIVER = Reason(code="camera.no_driver", message="No driver.", hint="Install it.")
NOTE = Reason(code="camera.pipewire_only", message="Some programs only.")
PUBLISHED = CameraDevice(device="standin-camera", label="Standin Camera", backend="pipewire", note=NOTE)
STOPPED = CameraDevice(
    device="standin-camera",
    label="Standin Camera",
    backend="pipewire",
    problem=Reason(code="camera.pipewire_missing", message="No server.", hint="Start it."),
)
KERNEL = CameraDevice(device="/dev/video9", label="Standin Camera", backend="v4l2")
BUSY = CameraDevice(
    device="/dev/video9", label="Mine", backend="v4l2", problem=Reason(code="camera.busy", message="B.")
)


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="pw") as name:  # short: a socket's path has a limit
        yield Path(name)


@pytest.fixture
def listening(folder):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "pipewire-0"))
        server.listen()
        yield folder


def _system(folder: Path, *programs: str, variable="XDG_RUNTIME_DIR", has_library=True) -> PipewireSystem:
    proc = folder / "proc"
    for number, program in enumerate(programs, 100):
        (proc / str(number)).mkdir(parents=True)
        (proc / str(number) / "comm").write_text(program + "\n")
    return PipewireSystem(environment={variable: str(folder)}, proc=proc, has_library=lambda: has_library)


@pytest.mark.parametrize("manager", ["wireplumber", "pipewire-media-"])
@pytest.mark.parametrize("variable", ["XDG_RUNTIME_DIR", "PIPEWIRE_RUNTIME_DIR"])
def test_usable(listening, manager, variable):
    camera = pipewire_camera(_system(listening, "systemd", "pipewire", manager, variable=variable))
    assert camera.problem is None and "Firefox" in camera.note.message and camera.note.hint == ""


def test_note_says_why_it_stands_in(listening):
    camera = pipewire_camera(_system(listening, "pipewire", "wireplumber"), NO_DRIVER)
    assert "No driver. Install it." in camera.note.hint


def test_library_is_missing(listening):
    camera = pipewire_camera(_system(listening, has_library=False))
    assert camera.problem.code == "camera.no_pipewire" and camera.note is None


def test_nobody_listens(folder):
    assert pipewire_camera(_system(folder)).problem.message.endswith("(No such file or directory).")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "pipewire-0"))
    problem = pipewire_camera(_system(folder)).problem
    assert problem.message.endswith("(Connection refused).") and "systemctl --user" in problem.hint


def test_no_session_folder():
    problem = pipewire_camera(PipewireSystem(environment={}, has_library=lambda: True)).problem
    assert problem.code == "camera.pipewire_missing" and "XDG_RUNTIME_DIR" in problem.message


def test_no_session_manager(listening):
    assert pipewire_camera(_system(listening, "systemd", "pipewire")).problem.code == "camera.pipewire_unmanaged"


def test_hidden_processes_are_no_proof(listening):
    assert pipewire_camera(_system(listening, "python", "bwrap")).problem is None


@pytest.mark.parametrize(
    ("name", "expected"), [("other", "other"), ("", "pipewire-0"), ("/run/else/socket", "/run/else/socket")]
)
def test_server_by_name(name, expected):
    system = PipewireSystem(environment={"PIPEWIRE_REMOTE": name, "XDG_RUNTIME_DIR": "/run/user/7"})
    assert system.server == Path("/run/user/7") / expected


@pytest.mark.parametrize(
    ("cameras", "settings", "backend"),
    [
        ([KERNEL, PUBLISHED], {}, "v4l2"),
        ([BUSY, PUBLISHED], {}, "pipewire"),
        ([PUBLISHED], {}, "pipewire"),
        ([KERNEL, PUBLISHED], {"backend": "pipewire"}, "pipewire"),
        ([KERNEL, PUBLISHED], {"device": "standin-camera"}, "pipewire"),
        ([KERNEL, PUBLISHED], {"device": "Standin Camera"}, "v4l2"),
        ([KERNEL, PUBLISHED], {"backend": "pyvirtualcam"}, "pyvirtualcam"),
    ],
)
def test_choice(monkeypatch, caplog, cameras, settings, backend):
    monkeypatch.setattr(virtual_camera, "list_cameras", lambda: (cameras, None))
    camera = virtual_camera.open_camera(CameraSettings(**settings))
    assert camera.backend == backend
    assert ("Some programs only." in caplog.text) is (backend == "pipewire")


@pytest.mark.parametrize(
    ("cameras", "settings", "code"),
    [
        ([STOPPED], {}, "camera.no_driver"),
        ([STOPPED], {"backend": "pipewire"}, "camera.pipewire_missing"),
        ([STOPPED], {"device": "standin-camera"}, "camera.pipewire_missing"),
        ([STOPPED], {"backend": "v4l2"}, "camera.no_driver"),
        ([BUSY, PUBLISHED], {"backend": "v4l2"}, "camera.busy"),
        ([BUSY, PUBLISHED], {"device": "Mine"}, "camera.busy"),
    ],
)
def test_refusals_name_what_was_asked_for(monkeypatch, cameras, settings, code):
    monkeypatch.setattr(virtual_camera, "list_cameras", lambda: (cameras, NO_DRIVER))
    with pytest.raises(CameraError) as caught:
        virtual_camera.open_camera(CameraSettings(**settings))
    assert caught.value.code == code


def test_list_has_the_kernels_cameras_first(monkeypatch):
    monkeypatch.setattr(virtual_camera.sys, "platform", "linux")
    monkeypatch.setattr(virtual_camera, "list_linux_cameras", lambda: ([BUSY], BUSY.problem))
    for published, reason in ((PUBLISHED, None), (STOPPED, BUSY.problem)):
        monkeypatch.setattr(virtual_camera, "pipewire_camera", lambda kernel_reason, camera=published: camera)
        assert virtual_camera.list_cameras() == ([BUSY, published], reason)
