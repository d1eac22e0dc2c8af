"""The libraries and programs that no Python package brings: looked for, installed where that is allowed, else named.

They are looked for by loading them, not by asking a package manager: what counts is that they work.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from setup_report import SetupError, last_lines, run_quietly, say

MANAGERS = {
    "apt": "apt-get update && {sudo}apt-get install -y --no-install-recommends",
    "dnf": "dnf install -y",
    "pacman": "pacman -S --needed",
    "zypper": "zypper install -y",
    "brew": "brew install",
}
_PROGRAM_OF = {"apt": "apt-get"}
_APT = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "-q"]


@dataclass(frozen=True, kw_only=True)
class Need:
    """Something the system must provide: how to tell that it is there, and what it is called elsewhere."""

    name: str
    is_there: Callable[[], bool]
    packages: dict[str, str] = field(default_factory=dict)


def _library(soname: str, apt: str, dnf: str = "", pacman: str = "", zypper: str = "") -> Need:
    packages = {"apt": apt, "dnf": dnf, "pacman": pacman, "zypper": zypper}
    return Need(name=soname, is_there=lambda: _loads(soname), packages=packages)


def _program(name: str, apt: str, dnf: str = "", pacman: str = "", zypper: str = "", brew: str = "") -> Need:
    packages = {"apt": apt, "dnf": dnf, "pacman": pacman, "zypper": zypper, "brew": brew}
    return Need(name=name, is_there=lambda: shutil.which(name) is not None, packages=packages)


def _loads(soname: str) -> bool:
    try:
        ctypes.CDLL(soname)
    except OSError:
        return False
    return True


def _any_file(*patterns: str) -> Callable[[], bool]:
    return lambda: any(next(Path("/").glob(pattern), None) for pattern in patterns)


SOUND = (_library("libportaudio.so.2", "libportaudio2", "portaudio", "portaudio", "libportaudio2"),)

WINDOW = (
    _library("libGL.so.1", "libgl1", "libglvnd-glx", "libglvnd", "libglvnd"),
    _library("libEGL.so.1", "libegl1", "libglvnd-egl", "libglvnd", "libglvnd"),
    _library("libglib-2.0.so.0", "libglib2.0-0", "glib2", "glib2", "libglib-2_0-0"),
    _library("libgthread-2.0.so.0", "libglib2.0-0", "glib2", "glib2", "libgthread-2_0-0"),
    _library("libdbus-1.so.3", "libdbus-1-3", "dbus-libs", "dbus", "libdbus-1-3"),
    _library("libfontconfig.so.1", "libfontconfig1", "fontconfig", "fontconfig", "libfontconfig1"),
    _library("libfreetype.so.6", "libfreetype6", "freetype", "freetype2", "libfreetype6"),
    _library("libX11-xcb.so.1", "libx11-xcb1", "libX11-xcb", "libx11", "libX11-xcb1"),
    _library("libxkbcommon.so.0", "libxkbcommon0", "libxkbcommon", "libxkbcommon", "libxkbcommon0"),
    _library(
        "libxkbcommon-x11.so.0",
        "libxkbcommon-x11-0",
        "libxkbcommon-x11",
        "libxkbcommon-x11",
        "libxkbcommon-x11-0",
    ),
    _library("libxcb-cursor.so.0", "libxcb-cursor0", "xcb-util-cursor", "xcb-util-cursor", "libxcb-cursor0"),
    _library("libxcb-icccm.so.4", "libxcb-icccm4", "xcb-util-wm", "xcb-util-wm", "libxcb-icccm4"),
    _library("libxcb-image.so.0", "libxcb-image0", "xcb-util-image", "xcb-util-image", "libxcb-image0"),
    _library("libxcb-keysyms.so.1", "libxcb-keysyms1", "xcb-util-keysyms", "xcb-util-keysyms", "libxcb-keysyms1"),
    _library("libxcb-randr.so.0", "libxcb-randr0", "libxcb", "libxcb", "libxcb-randr0"),
    _library(
        "libxcb-render-util.so.0",
        "libxcb-render-util0",
        "xcb-util-renderutil",
        "xcb-util-renderutil",
        "libxcb-render-util0",
    ),
    _library("libxcb-shape.so.0", "libxcb-shape0", "libxcb", "libxcb", "libxcb-shape0"),
    _library("libxcb-shm.so.0", "libxcb-shm0", "libxcb", "libxcb", "libxcb-shm0"),
    _library("libxcb-sync.so.1", "libxcb-sync1", "libxcb", "libxcb", "libxcb-sync1"),
    _library("libxcb-xfixes.so.0", "libxcb-xfixes0", "libxcb", "libxcb", "libxcb-xfixes0"),
    _library("libxcb-xkb.so.1", "libxcb-xkb1", "libxcb", "libxcb", "libxcb-xkb1"),
    Need(
        name="a font",
        is_there=_any_file(
            "usr/share/fonts/**/*.[to]tf", "usr/local/share/fonts/**/*.[to]tf", "usr/share/fonts/**/*.ttc"
        ),
        packages={
            "apt": "fonts-dejavu-core", "dnf": "dejavu-sans-fonts", "pacman": "ttf-dejavu", "zypper": "dejavu-fonts",
        },
    ),
)  # fmt: skip

TESTS_LINUX = (
    _program("Xvfb", "xvfb", "xorg-x11-server-Xvfb", "xorg-server-xvfb", "xorg-x11-server-Xvfb"),
    _program("pulseaudio", "pulseaudio", "pulseaudio", "pulseaudio", "pulseaudio"),
    _program("pactl", "pulseaudio-utils", "pulseaudio-utils", "libpulse", "pulseaudio-utils"),
    Need(
        name="the ALSA plug-in for PulseAudio",
        is_there=_any_file("usr/lib*/**/alsa-lib/libasound_module_pcm_pulse.so"),
        packages={
            "apt": "libasound2-plugins", "dnf": "alsa-plugins-pulseaudio", "pacman": "alsa-plugins",
            "zypper": "alsa-plugins-pulse",
        },
    ),
    Need(
        name="xdg-desktop-portal",
        is_there=_any_file("usr/libexec/xdg-desktop-portal", "usr/lib/xdg-desktop-portal"),
        packages=dict.fromkeys(("apt", "dnf", "pacman", "zypper"), "xdg-desktop-portal"),
    ),
)  # fmt: skip

TESTS_ANYWHERE = (
    _program("espeak-ng", "espeak-ng", "espeak-ng", "espeak-ng", "espeak-ng", "espeak-ng"),
    _program("ffmpeg", "ffmpeg", "ffmpeg-free", "ffmpeg", "ffmpeg", "ffmpeg"),
    _program("sox", "sox", "sox", "sox", "sox", "sox"),
)

# Debian keeps it in a package of its own.
VENV = Need(
    name="the venv module of Python",
    is_there=lambda: all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")),
    packages={
        "apt": f"python{sys.version_info.major}.{sys.version_info.minor}-venv", "dnf": "python3-pip",
        "pacman": "python", "zypper": "python3-pip", "brew": "python@3.12",
    },
)  # fmt: skip


def ensure(*, for_tests: bool, for_window: bool, for_new_environment: bool) -> None:
    """Return when everything is there; install it as root on Debian and Ubuntu, else raise `SetupError`."""
    needs = _needs(for_tests=for_tests, for_window=for_window)
    if for_new_environment:
        needs = (VENV, *needs)
    missing = [need for need in needs if not need.is_there()]
    if missing:
        _install_or_name(missing)
        importlib.invalidate_caches()
        still_missing = [need.name for need in missing if not need.is_there()]
        if still_missing:
            raise SetupError(f"Still missing after installing: {', '.join(still_missing)}.")


def _needs(*, for_tests: bool, for_window: bool) -> tuple[Need, ...]:
    """Windows and macOS wheels bring their own PortAudio and Qt needs nothing there."""
    if sys.platform == "darwin":
        return TESTS_ANYWHERE if for_tests else ()
    if sys.platform != "linux":
        return ()
    window = WINDOW if for_window or for_tests or _may_install() else ()
    return (*SOUND, *window, *((*TESTS_LINUX, *TESTS_ANYWHERE) if for_tests else ()))


def _install_or_name(missing: Sequence[Need]) -> None:
    manager = _manager()
    if manager == "apt" and _may_install():
        _apt_install(packages_for(missing, "apt"))
        return
    raise SetupError(f"This system lacks {', '.join(need.name for need in missing)}. {_advice(missing, manager)}")


def _advice(missing: Sequence[Need], manager: str | None) -> str:
    names = packages_for(missing, manager) if manager else []
    if manager is None or not names:
        return "Install that, then run this command again."
    return f"Run this once, then this command again:\n\n  {install_command(manager, names, is_root=_is_root())}\n"


def packages_for(needs: Sequence[Need], manager: str) -> list[str]:
    """What `manager` calls these needs, each once, in order."""
    return list(dict.fromkeys(need.packages[manager] for need in needs if need.packages.get(manager)))


def install_command(manager: str, packages: Sequence[str], *, is_root: bool) -> str:
    """The one line to type."""
    sudo = "" if is_root or manager == "brew" else "sudo "
    return f"{sudo}{MANAGERS[manager].format(sudo=sudo)} {' '.join(packages)}"


def _manager() -> str | None:
    managers = ("brew",) if sys.platform == "darwin" else ("apt", "dnf", "pacman", "zypper")
    return next((name for name in managers if shutil.which(_PROGRAM_OF.get(name, name))), None)


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _may_install() -> bool:
    return sys.platform == "linux" and _is_root() and shutil.which("apt-get") is not None


def _apt_install(packages: Sequence[str]) -> None:
    say(f"installing system libraries: {' '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    try:
        run_quietly([*_APT, "update"], env=environment)
        run_quietly([*_APT, "install", "-y", "--no-install-recommends", *packages], env=environment)
    except subprocess.CalledProcessError as error:
        raise SetupError(
            f"The system libraries could not be installed. Try it by hand: "
            f"{install_command('apt', packages, is_root=True)}",
            output=last_lines(error.output),
        ) from error
