"""Virtual cameras on Linux: every loopback device with its label, and the exact reason why it cannot be used."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path

from engine.camera import v4l2
from engine.protocol.messages import CameraDevice, Reason

_INSTALL = (
    "Install it: sudo apt install v4l2loopback-dkms (Fedora: RPM Fusion's v4l2loopback; Arch: v4l2loopback-dkms), "
    "then: sudo modprobe v4l2loopback exclusive_caps=1 card_label='Standin Camera'"
)
_LOAD = "Load it: sudo modprobe v4l2loopback exclusive_caps=1 card_label='Standin Camera'"


@dataclass(frozen=True, kw_only=True)
class LinuxSystem:
    """The places that the answers come from; tests point them at a folder of their own."""

    sys: Path = Path("/sys")
    dev: Path = Path("/dev")
    proc: Path = Path("/proc")
    modules: Path = Path("/lib/modules") / os.uname().release if hasattr(os, "uname") else Path("/lib/modules")

    def capability(self, path: Path) -> v4l2.Capability:
        """What the device says of itself; raises OSError."""
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        try:
            return v4l2.query_capability(descriptor)
        finally:
            os.close(descriptor)


def list_linux_cameras(system: LinuxSystem | None = None) -> tuple[list[CameraDevice], Reason | None]:
    """(loopback devices in order, why there is none that can be used)."""
    system = system or LinuxSystem()
    cameras = []
    for node in sorted((system.sys / "class" / "video4linux").glob("video*"), key=_number):
        camera = _examined(system, node)
        if camera is not None:
            cameras.append(camera)
    if any(camera.problem is None for camera in cameras):
        return cameras, None
    if cameras:
        return cameras, cameras[0].problem
    return [], _why_none(system)


def _examined(system: LinuxSystem, node: Path) -> CameraDevice | None:
    """The loopback device behind `node`; None for real webcams and what is no camera."""
    path = system.dev / node.name
    label = _read(node / "name") or node.name
    try:
        capability = system.capability(path)
    except OSError as error:
        # Only root may ask a device that it may not open; the kernel's own list tells loopback devices apart.
        if "virtual" not in str(node.resolve()):
            return None
        return CameraDevice(device=str(path), label=label, backend="v4l2", problem=_open_problem(path, error))
    if not capability.is_loopback:
        return None
    problem = None if capability.takes_output else _fed_by(system, path)
    return CameraDevice(device=str(path), label=capability.card or label, backend="v4l2", problem=problem)


def lists_in_browsers(device: str, system: LinuxSystem | None = None) -> bool:
    """Whether Chrome, Meet and Teams will list the device: they want capture-only, which exclusive_caps=1 gives."""
    return _has_exclusive_caps(system or LinuxSystem(), Path(device).name)


def _open_problem(path: Path, error: OSError) -> Reason:
    if error.errno in (errno.EACCES, errno.EPERM):
        return Reason(
            code="camera.permission",
            message=f"No permission for {path}.",
            hint="Run: sudo usermod -aG video $USER, then log out and in.",
        )
    if error.errno == errno.EBUSY:
        return Reason(
            code="camera.busy",
            message=f"{path} is in use by another program.",
            hint="Close it, or pick another device.",
        )
    return Reason(
        code="camera.setup",
        message=f"{path} cannot be opened ({error.strerror}).",
        hint="Reload the v4l2loopback driver.",
    )


def _fed_by(system: LinuxSystem, path: Path) -> Reason:
    """Capture only: somebody feeds it, or version 0.12 has forgotten to offer output (repaired when it is opened)."""
    users = programs_using(system, path)
    if users:
        return Reason(
            code="camera.busy",
            message=f"{path} is being fed already; it is open in {', '.join(users)}.",
            hint="Stop the program that feeds it, or pick another device.",
        )
    return Reason(
        code="camera.no_output",
        message=f"{path} does not offer to be fed.",
        hint="Standin repairs this when it starts the camera; if that fails, reload the v4l2loopback driver.",
    )


def programs_using(system: LinuxSystem, path: Path) -> list[str]:
    """Names and numbers of the other processes that have the device open, as far as this user may see."""
    found = set()
    for process in system.proc.glob("[0-9]*"):
        try:
            if int(process.name) == os.getpid():
                continue
            if any(os.readlink(link) == str(path) for link in (process / "fd").iterdir()):
                found.add(f"{_read(process / 'comm') or 'process'} ({process.name})")
        except OSError:
            continue  # gone, or another user's
    return sorted(found)


def _has_exclusive_caps(system: LinuxSystem, name: str) -> bool:
    text = _read(system.sys / "module" / "v4l2loopback" / "parameters" / "exclusive_caps")
    if not text:
        return True  # newer versions keep it per device and do not tell
    flags = text.split(",")
    numbers = _read(system.sys / "module" / "v4l2loopback" / "parameters" / "video_nr").split(",")
    number = name.removeprefix("video")
    index = numbers.index(number) if number in numbers else 0
    return index < len(flags) and flags[index].strip() in ("Y", "1")


def _why_none(system: LinuxSystem) -> Reason:
    if (system.sys / "module" / "v4l2loopback").exists():
        return Reason(
            code="camera.no_device",
            message="The v4l2loopback driver is loaded but has no device.",
            hint=f"Remove it: sudo modprobe -r v4l2loopback. {_LOAD}",
        )
    if any(system.modules.rglob("v4l2loopback.ko*")):
        return Reason(code="camera.not_loaded", message="The virtual camera driver is not loaded.", hint=_LOAD)
    return Reason(code="camera.no_driver", message="No virtual camera driver is installed.", hint=_INSTALL)


def _number(node: Path) -> int:
    digits = re.sub(r"\D", "", node.name)
    return int(digits) if digits else 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
