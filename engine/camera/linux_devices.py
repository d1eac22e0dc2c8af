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
_FLOW_TIMEOUT_S = 0.5
"""Whatever feeds a camera sends more than one picture in this time."""


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

    def keeps_format(self, path: Path) -> bool:
        """Whether the driver's keep_format holds the device's format, and with it its capture-only face."""
        return v4l2.keeps_format(str(path))

    def pictures_flow(self, path: Path) -> bool:
        """Whether new pictures arrive on a device of driver 0.12, where reading takes nothing from other watchers."""
        return v4l2.pictures_flow(str(path), _FLOW_TIMEOUT_S)


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
    problem = _why_not_fed(system, node, path, capability)
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


def _why_not_fed(system: LinuxSystem, node: Path, path: Path, capability: v4l2.Capability) -> Reason | None:
    """Why nobody else may feed the device now: somebody does, or it does not offer to be fed; None if it is free."""
    if (node / "state").exists():  # since 0.13; "capture" from a producer's first picture on
        shows_pictures = not capability.takes_output or _read(node / "state") == "capture"
        if shows_pictures and not system.keeps_format(path):
            return busy_reason(system, path)
        if not capability.takes_output:
            return Reason(
                code="camera.format_kept",
                message=f"{path} does not offer to be fed, because its driver keeps the last format.",
                hint=f"Run: v4l2-ctl -d {path} -c keep_format=0",
            )
        return None
    # 0.12 tells less: a producer that is gone may have left it capture-only, and without exclusive_caps it takes a
    # second producer, whose pictures then alternate with the first one's.
    has_been_fed = not (node / "format").exists() or _read(node / "format") != ""
    if has_been_fed and capability.shows_capture and system.pictures_flow(path):
        return busy_reason(system, path)
    if capability.takes_output:
        return None
    return Reason(
        code="camera.no_output",
        message=f"{path} does not offer to be fed.",
        hint="Standin repairs this when it starts the camera; if that fails, reload the v4l2loopback driver.",
    )


def busy_reason(system: LinuxSystem, path: Path) -> Reason:
    """That the device is being fed, and by whom, as far as this user may see."""
    feeders = programs_feeding(system, path)
    by = f" by {' or '.join(feeders)}" if feeders else " by a program of another user"
    return Reason(
        code="camera.busy",
        message=f"{path} is already being fed{by}.",
        hint="Close that program, or pick another device.",
    )


def programs_feeding(system: LinuxSystem, path: Path) -> list[str]:
    """Names and numbers of the programs that may be feeding the device. Watchers have its buffers mapped, and who
    writes pictures has not; so these are left out, unless nobody else has it open."""
    users = _users(system, path)
    writers = [process for process in users if str(path) not in _read(process / "maps")]
    return [_program_name(process) for process in writers or users]


def programs_using(system: LinuxSystem, path: Path) -> list[str]:
    """Names and numbers of the other processes that have the device open, as far as this user may see."""
    return [_program_name(process) for process in _users(system, path)]


def _users(system: LinuxSystem, path: Path) -> list[Path]:
    found = []
    for process in system.proc.glob("[0-9]*"):
        try:
            is_other = int(process.name) != os.getpid()
            if is_other and any(os.readlink(link) == str(path) for link in (process / "fd").iterdir()):
                found.append(process)
        except OSError:
            continue  # gone, or another user's
    return sorted(found, key=lambda process: int(process.name))


def _program_name(process: Path) -> str:
    is_ours = "engine.camera.process" in _read(process / "cmdline")
    return f"{'Standin' if is_ours else _read(process / 'comm') or 'process'} ({process.name})"


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
