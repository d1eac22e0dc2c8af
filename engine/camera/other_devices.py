"""Virtual cameras on Windows and macOS: OBS's and Unity Capture's, asked before pyvirtualcam opens them.

pyvirtualcam says "could not be started" for every cause; the answers here are the system's own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from engine.protocol.messages import CameraDevice, Reason

OBS_LABEL = "OBS Virtual Camera"
_OBS_CLASS = r"SOFTWARE\Classes\CLSID\{A3FCE0F5-3493-419F-958A-ABA1250EC20B}"
_UNITY_CLASS = r"SOFTWARE\Classes\CLSID\{5C2CD55C-92AD-4999-8666-912BD3E70010}"
_OBS_MEMORY = "OBSVirtualCamVideo"
_OBS_EXTENSION = "com.obsproject.obs-studio.mac-camera-extension"


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The system's answers, so that tests can give any of them."""

    platform: str
    has_registry_key: Callable[[str], bool]
    has_mapping: Callable[[str], bool]
    extensions: Callable[[], str]


def list_other_cameras(answers: Answers | None = None) -> tuple[list[CameraDevice], Reason | None]:
    """(cameras, why there is none that can be used) on Windows and macOS; nothing elsewhere."""
    answers = answers or _real_answers()
    cameras = _on_windows(answers) if answers.platform == "win32" else _on_macos(answers)
    if any(camera.problem is None for camera in cameras):
        return cameras, None
    return cameras, cameras[0].problem if cameras else None


def _on_windows(answers: Answers) -> list[CameraDevice]:
    problem = None
    if not answers.has_registry_key(_OBS_CLASS):
        problem = Reason(
            code="camera.no_driver",
            message="No virtual camera driver is installed.",
            hint="Install OBS Studio (free). You do not need to run it afterwards.",
        )
    elif answers.has_mapping(_OBS_MEMORY):
        problem = Reason(
            code="camera.busy",
            message="The OBS camera is in use, most likely by OBS itself.",
            hint="In OBS click Stop Virtual Camera, then start here.",
        )
    cameras = [CameraDevice(device=OBS_LABEL, label=OBS_LABEL, backend="pyvirtualcam:obs", problem=problem)]
    if answers.has_registry_key(_UNITY_CLASS):
        unity = "Unity Video Capture"
        cameras.append(CameraDevice(device=unity, label=unity, backend="pyvirtualcam:unitycapture"))
    return cameras


def _on_macos(answers: Answers) -> list[CameraDevice]:
    lines = [line for line in answers.extensions().splitlines() if _OBS_EXTENSION in line]
    problem = None
    if not lines:
        problem = Reason(
            code="camera.no_driver",
            message="OBS's camera extension is not installed.",
            hint="Open OBS 30 or later once, click Start Virtual Camera, allow the extension in System Settings "
            "(General, Login Items & Extensions, Camera Extensions), then quit OBS.",
        )
    elif any("waiting for user" in line for line in lines):
        problem = Reason(
            code="camera.not_allowed",
            message="One click is missing before the camera can be used.",
            hint="Allow OBS Virtual Camera in System Settings.",
        )
    elif not any("activated enabled" in line for line in lines):
        problem = Reason(
            code="camera.not_loaded",
            message="macOS has not loaded the camera yet.",
            hint="Log out or restart the Mac; remove old copies of OBS from the Trash first.",
        )
    return [CameraDevice(device=OBS_LABEL, label=OBS_LABEL, backend="pyvirtualcam:obs", problem=problem)]


def _real_answers() -> Answers:
    return Answers(
        platform=sys.platform,
        has_registry_key=_registry_has,
        has_mapping=_mapping_exists,
        extensions=_macos_extensions,
    )


def _registry_has(key: str) -> bool:
    import winreg

    try:
        winreg.CloseKey(winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key))  # type: ignore[attr-defined]
    except OSError:
        return False
    return True


def _mapping_exists(name: str) -> bool:
    import ctypes

    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined]
    handle = kernel.OpenFileMappingW(0x4, False, name)  # FILE_MAP_READ
    if handle:
        kernel.CloseHandle(handle)
    return bool(handle)


def _macos_extensions() -> str:
    try:
        done = subprocess.run(["systemextensionsctl", "list"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
