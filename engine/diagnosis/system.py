"""Everything that the doctor asks the system, in one object, so that tests can give any answer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from platform import release

from engine.camera.linux_devices import LinuxSystem
from engine.protocol.messages import DevicesListed

_RUN_TIMEOUT_S = 3.0


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How a program ended; `status` is None if it is not installed, -1 if it did not end in time."""

    status: int | None
    output: str = ""

    @property
    def is_good(self) -> bool:
        return self.status == 0


def run_program(command: Sequence[str]) -> Ran:
    """Run with the C locale; standard output and error together."""
    try:
        done = subprocess.run(
            list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=_RUN_TIMEOUT_S, check=False, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except FileNotFoundError:
        return Ran(status=None)
    except (OSError, subprocess.TimeoutExpired):
        return Ran(status=-1)
    return Ran(status=done.returncode, output=done.stdout.decode("utf-8", "replace"))


def read_text(path: str) -> str | None:
    """The file's text without surrounding blanks, None if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def free_bytes(path: Path) -> int | None:
    """Free space where `path` is or would be, None if that is not known."""
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None


def is_writable(path: Path) -> bool:
    """Whether files can be made in `path`, or in the folder in which it would be made."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return os.access(path, os.W_OK)


def has_package(name: str) -> bool:
    """Whether Python would find it; nothing is imported."""
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def package_version(name: str) -> str:
    """Of an installed distribution, empty if there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def has_registry_key(key: str) -> bool:
    """Windows: whether HKEY_LOCAL_MACHINE has it."""
    if sys.platform != "win32":
        return False
    from engine.camera.other_devices import _registry_has

    return _registry_has(key)


def has_real_time() -> bool:
    """Whether what passes pictures on may come before other programs' work."""
    from engine.real_time import has_real_time as asked

    return asked()


def list_devices() -> DevicesListed:
    """Sound devices and cameras."""
    from engine.server import list_devices as listed

    return listed()


def peak_of_default_microphone() -> float | None:
    """Listen for a second; see `engine.diagnosis.listen`."""
    from engine.diagnosis.listen import peak_dbfs

    return peak_dbfs()


@dataclass(frozen=True, kw_only=True)
class System:
    """The system's answers. None of them changes anything; each may take up to some seconds, from any thread."""

    platform: str = sys.platform
    kernel: str = field(default_factory=release)
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    python: tuple[int, int, int] = (sys.version_info[0], sys.version_info[1], sys.version_info[2])
    run: Callable[[Sequence[str]], Ran] = run_program
    read: Callable[[str], str | None] = read_text
    exists: Callable[[str], bool] = os.path.exists
    list_folder: Callable[[str], list[str]] = lambda path: os.listdir(path) if os.path.isdir(path) else []
    is_writable: Callable[[Path], bool] = is_writable
    free_bytes: Callable[[Path], int | None] = free_bytes
    has_package: Callable[[str], bool] = has_package
    package_version: Callable[[str], str] = package_version
    has_registry_key: Callable[[str], bool] = has_registry_key
    has_real_time: Callable[[], bool] = has_real_time
    devices: Callable[[], DevicesListed] = list_devices
    listen: Callable[[], float | None] = peak_of_default_microphone
    own_cameras: frozenset[str] = frozenset()
    """Devices that this very program feeds: they are in use, and that is good."""

    linux: LinuxSystem = field(default_factory=LinuxSystem)

    @property
    def is_linux(self) -> bool:
        return self.platform.startswith("linux")

    @property
    def distribution(self) -> str:
        """ "debian", "fedora", "arch", "suse", or "" for others."""
        text = self.read("/etc/os-release") or ""
        words = set()
        for line in text.splitlines():
            key, _, value = line.partition("=")
            if key in ("ID", "ID_LIKE"):
                words |= set(value.strip('"').split())
        for name, signs in _FAMILIES.items():
            if words & signs:
                return name
        return ""

    def install_command(self, packages: Mapping[str, str]) -> str:
        """How this distribution installs what it calls `packages[distribution]`; Debian's way if it is another."""
        family = self.distribution if self.distribution in packages else "debian"
        return f"{_INSTALLERS[family]} {packages[family]}"


_FAMILIES = {
    "debian": {"debian", "ubuntu"},
    "fedora": {"fedora", "rhel", "centos"},
    "arch": {"arch"},
    "suse": {"suse", "opensuse"},
}
_INSTALLERS = {
    "debian": "sudo apt install",
    "fedora": "sudo dnf install",
    "arch": "sudo pacman -S",
    "suse": "sudo zypper install",
}
