"""Python, packages, files, disk and memory."""

from __future__ import annotations

import hashlib
from pathlib import Path

from engine.assets import asset_path
from engine.diagnosis.catalogue import Catalogue, Finding
from engine.diagnosis.system import System
from engine.errors import StandinError
from engine.paths import data_folder, recordings_folder

_PYTHONS = ((3, 10), (3, 13))
_PACKAGES = {
    "av": "av", "cv2": "opencv-python-headless", "msgspec": "msgspec", "numpy": "numpy", "PIL": "pillow",
    "platformdirs": "platformdirs", "pyvirtualcam": "pyvirtualcam", "sounddevice": "sounddevice", "soxr": "soxr",
}  # fmt: skip
_LINUX_PACKAGES = {"jeepney": "jeepney"}
"""What is imported -> what is installed."""

_REALTIME_KIT = {"debian": "rtkit", "fedora": "rtkit", "arch": "rtkit", "suse": "rtkit"}

_LEAST_FREE_BYTES = 500 << 20
_LEAST_SHARED_BYTES = 32 << 20
"""Two pictures of 1920 x 1080 each for preview and camera, and room for those of another session."""


def python(system: System, texts: Catalogue) -> list[Finding]:
    """The interpreter and the packages."""
    version = ".".join(str(part) for part in system.python)
    is_tested = _PYTHONS[0] <= system.python[:2] <= _PYTHONS[1]
    findings = [texts.found("Python", "python.good" if is_tested else "python.unsupported", version=version)]
    for module, package in (_PACKAGES | (_LINUX_PACKAGES if system.is_linux else {})).items():
        if not system.has_package(module):
            findings.append(texts.found("Python", "package.missing", name=package))
    if system.package_version("opencv-python") and system.package_version("opencv-python-headless"):
        findings.append(texts.found("Python", "package.opencv_twice"))
    return findings


def window(system: System, texts: Catalogue) -> list[Finding]:
    """Whether the window can open."""
    if not system.has_package("PySide6"):
        return [texts.found("window", "window.no_qt")]
    variables = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if system.is_linux and not any(system.environment.get(name) for name in variables):
        return [texts.found("window", "window.no_display")]
    return [texts.found("window", "window.good")]


def samples(system: System, texts: Catalogue) -> list[Finding]:
    """The pictures that come with Standin."""
    try:
        path = str(asset_path("portraits/index.json"))
    except StandinError as error:
        path = str(error)
    if not system.exists(path):
        return [texts.found("samples", "samples.missing", path=path)]
    return [texts.found("samples", "samples.good")]


def recording(system: System, texts: Catalogue) -> list[Finding]:
    """Codecs, and the folder that clips go to."""
    for codec in ("libx264", "aac"):
        if not _has_codec(codec):
            return [texts.found("recording", "recording.no_codec", codec=codec)]
    folder = recordings_folder()
    if not system.exists(str(folder)):
        return [texts.found("recording", "recording.no_folder", folder=folder)]
    if not system.is_writable(folder):
        return [texts.found("recording", "recording.not_writable", folder=folder)]
    return [texts.found("recording", "recording.good", folder=folder)]


def _has_codec(name: str) -> bool:
    import av.codec
    import av.error

    try:
        av.codec.Codec(name, "w")
    except (ValueError, av.error.FFmpegError):
        return False
    return True


def disk(system: System, texts: Catalogue) -> list[Finding]:
    """Room, and whether Standin's own folder can be written."""
    folder = data_folder()
    if not system.is_writable(folder):
        return [texts.found("disk", "data.not_writable", folder=folder, command=f"sudo chown -R $USER '{folder}'")]
    free = system.free_bytes(folder)
    if free is None:
        return []
    code = "disk.low" if free < _LEAST_FREE_BYTES else "disk.good"
    return [texts.found("disk", code, free=_size(free), folder=folder)]


def shared_memory(system: System, texts: Catalogue) -> list[Finding]:
    """Linux keeps it in a file system of its own, which containers make small."""
    if not system.is_linux:
        return []
    if not system.exists("/dev/shm"):
        return [texts.found("memory", "memory.no_shared")]
    free = system.free_bytes(Path("/dev/shm"))
    if free is not None and free < _LEAST_SHARED_BYTES:
        return [texts.found("memory", "memory.small_shared", free=_size(free))]
    return []


def priority(system: System, texts: Catalogue) -> list[Finding]:
    """Whether pictures go on in time while other programs keep all processors busy."""
    if not system.is_linux or system.has_real_time():
        return [texts.found("priority", "priority.good")]
    return [texts.found("priority", "priority.shared", command=system.install_command(_REALTIME_KIT))]


def face_models(system: System, texts: Catalogue, folder: Path | None = None) -> list[Finding]:
    """The three small files that find faces: there, and whole."""
    from engine.generators.puppet.models import FACE_MODELS, face_models_dir

    folder = folder or face_models_dir()
    missing, damaged = 0, []
    for model in FACE_MODELS:
        path = folder / model.name
        if not path.is_file():
            missing += 1
        elif hashlib.sha256(path.read_bytes()).hexdigest() != model.sha256:
            damaged.append(model.name)
    if damaged:
        return [texts.found("face models", "face_models.damaged", names=", ".join(damaged))]
    if missing:
        return [texts.found("face models", "face_models.missing", count=missing)]
    return [texts.found("face models", "face_models.good")]


def models(system: System, texts: Catalogue, folder: Path | None = None) -> list[Finding]:
    """Large models that were begun; nobody needs one that was never asked for."""
    from engine.model_store.store import ModelStore

    findings = []
    for state in ModelStore(folder, is_offline=True).states():
        if state.status == "partial":
            findings.append(texts.found("models", "models.partial", name=state.name))
        elif state.status == "damaged":
            detail = state.problems[0] if state.problems else ""
            findings.append(texts.found("models", "models.damaged", name=state.name, detail=detail))
    return findings


def _size(count: int) -> str:
    return f"{count / 1e9:.0f} GB" if count >= 1e9 else f"{count >> 20} MB"
