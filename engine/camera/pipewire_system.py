"""Whether a camera can be published through this user's PipeWire server, and if not, exactly why."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from engine.camera.pipewire_library import SONAME
from engine.protocol.messages import CameraDevice, Reason

NODE_NAME = "standin-camera"
LABEL = "Standin Camera"
_MANAGERS = ("wireplumber", "pipewire-media-")  # the kernel cuts process names at 15 letters
_CONNECT_TIMEOUT_S = 1.0


def _loads(soname: str) -> bool:
    try:
        ctypes.CDLL(soname)
    except OSError:
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class PipewireSystem:
    """The places that the answers come from; tests point them at a folder of their own."""

    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    proc: Path = Path("/proc")
    has_library: Callable[[], bool] = lambda: _loads(SONAME)

    @property
    def server(self) -> Path | None:
        """The server's socket by PipeWire's own rules; None where there is no folder for it."""
        name = self.environment.get("PIPEWIRE_REMOTE") or "pipewire-0"
        if name.startswith("/"):
            return Path(name)
        for variable in ("PIPEWIRE_RUNTIME_DIR", "XDG_RUNTIME_DIR", "USERPROFILE"):
            if self.environment.get(variable):
                return Path(self.environment[variable]) / name
        return None


def pipewire_camera(system: PipewireSystem | None = None, kernel_reason: Reason | None = None) -> CameraDevice:
    """The camera that PipeWire would show. `kernel_reason` says why no kernel camera can be used, if so; where this
    one stands in for it, its note says so."""
    problem = _problem(system or PipewireSystem())
    note = None
    if problem is None:
        why = f"No kernel camera can be used: {kernel_reason.message} {kernel_reason.hint}" if kernel_reason else ""
        note = Reason(
            code="camera.pipewire_only",
            message="Only programs that take PipeWire cameras see it: Firefox, OBS, GNOME's camera app, and Chromium "
            "with its PipeWire camera flag.",
            hint=why.strip(),
        )
    return CameraDevice(device=NODE_NAME, label=LABEL, backend="pipewire", problem=problem, note=note)


def _problem(system: PipewireSystem) -> Reason | None:
    if not system.has_library():
        return Reason(
            code="camera.no_pipewire",
            message="PipeWire is not installed.",
            hint="Install it (sudo apt install pipewire wireplumber), then log out and in.",
        )
    failure = _connection_failure(system.server)
    if failure:
        return Reason(
            code="camera.pipewire_missing",
            message=f"PipeWire's server cannot be reached ({failure}).",
            hint="Start it: systemctl --user start pipewire wireplumber",
        )
    if not _has_manager(system.proc):
        return Reason(
            code="camera.pipewire_unmanaged",
            message="PipeWire runs without a session manager, so no program would get the picture.",
            hint="Start it: systemctl --user start wireplumber",
        )
    return None


def _connection_failure(server: Path | None) -> str:
    """Why nobody answers at `server`; empty if somebody does."""
    if server is None:
        return "this session has no XDG_RUNTIME_DIR"
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_CONNECT_TIMEOUT_S)
            connection.connect(str(server))
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""


def _has_manager(proc: Path) -> bool:
    """Whether a session manager runs; yes where processes cannot be seen, as in some sandboxes."""
    names = []
    for process in proc.glob("[0-9]*"):
        try:
            names.append((process / "comm").read_text().strip())
        except OSError:
            continue
    is_hidden = len(names) < 2 or not any(name.startswith("pipewire") for name in names)
    return is_hidden or any(name.startswith(_MANAGERS) for name in names)
