"""A browser that asks the desktop's portal for PipeWire cameras finds ours and sees every picture in order: Chromium,
xdg-desktop-portal, PipeWire and WirePlumber, on a message bus of the test's own. In the place of the desktop's dialog
stands a service that says yes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

jeepney = pytest.importorskip("jeepney")
from jeepney.bus_messages import message_bus  # noqa: E402
from jeepney.io.blocking import open_dbus_connection  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1] / "camera_vm"))
import pictures  # noqa: E402
from browser import CHROMIUM, Browser  # noqa: E402

PORTALS = ("/usr/libexec/xdg-desktop-portal", "/usr/lib/xdg-desktop-portal")
PORTAL = next((path for path in PORTALS if os.path.exists(path)), None)
TOOLS = {
    "dbus-daemon": shutil.which("dbus-daemon"), "pipewire": shutil.which("pipewire"),
    "wireplumber": shutil.which("wireplumber"), "chromium": CHROMIUM,
    "xdg-desktop-portal": PORTAL,
}  # fmt: skip
DESKTOP = "standin-test"
DIALOG = f"org.freedesktop.impl.portal.desktop.{DESKTOP.replace('-', '')}"
FPS, WIDTH, HEIGHT = 25, 640, 360
DEADLINE_S = 30.0

MISSING = [tool for tool, path in TOOLS.items() if path is None]

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.timeout(300),
]


class Dialog(threading.Thread):
    """The desktop's side of the portal: asks nobody, and says yes."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.asked = 0
        self._bus = open_dbus_connection(address)
        self._bus.send_and_get_reply(message_bus.RequestName(DIALOG))

    def close(self) -> None:
        self.join(10)  # the bus is gone
        self._bus.close()

    def run(self) -> None:
        with contextlib.suppress(OSError, EOFError, ValueError):
            while True:
                message = self._bus.receive()
                if message.header.message_type is not jeepney.MessageType.method_call:
                    continue
                if message.header.fields[jeepney.HeaderFields.member] == "AccessDialog":
                    self.asked += 1
                    self._bus.send(jeepney.new_method_return(message, "ua{sv}", (0, {})))
                else:
                    self._bus.send(jeepney.new_error(message, "org.freedesktop.DBus.Error.UnknownMethod"))


class Desktop:
    """Bus, PipeWire, WirePlumber and portal, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._children: list[subprocess.Popen] = []
        portals = folder / "portals"
        portals.mkdir()
        (portals / f"{DESKTOP}.portal").write_text(
            f"[portal]\nDBusName={DIALOG}\nInterfaces=org.freedesktop.impl.portal.Access;\nUseIn={DESKTOP}\n"
        )
        (portals / f"{DESKTOP}-portals.conf").write_text(f"[preferred]\ndefault={DESKTOP}\n")
        self.environment = {
            **os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder), "XDG_CURRENT_DESKTOP": DESKTOP,
            "XDG_DESKTOP_PORTAL_DIR": str(portals), "XDG_DATA_HOME": str(folder / "data"),
            "XDG_STATE_HOME": str(folder / "state"), "XDG_CONFIG_HOME": str(folder / "config"),
        }  # fmt: skip
        for name in ("DISPLAY", "WAYLAND_DISPLAY", "PIPEWIRE_REMOTE", "PIPEWIRE_RUNTIME_DIR"):
            self.environment.pop(name, None)
        self._folder, self._log = folder, (folder / "log").open("wb")
        self.dialog: Dialog | None = None

    def open(self) -> None:
        bus = self.start("dbus-daemon", "--session", "--nofork", "--print-address", stdout=subprocess.PIPE, text=True)
        self.environment["DBUS_SESSION_BUS_ADDRESS"] = bus.stdout.readline().strip()
        self.dialog = Dialog(self.environment["DBUS_SESSION_BUS_ADDRESS"])
        self.dialog.start()
        self.start("pipewire")
        wait_for((self._folder / "pipewire-0").exists, "PipeWire")
        self.start("wireplumber")
        self.start(PORTAL, "--verbose")

    def start(self, *command: str, **options) -> subprocess.Popen:
        options = {"stdout": self._log, "stderr": self._log, **options}
        self._children.append(subprocess.Popen(command, env=self.environment, **options))
        return self._children[-1]

    def close(self) -> None:
        for child in reversed(self._children):
            family = [child, *psutil.Process(child.pid).children(recursive=True)]
            for member in family:
                with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                    member.send_signal(signal.SIGKILL)
            child.wait()
            if child.stdout is not None:
                child.stdout.close()
        self._log.close()
        if self.dialog is not None:
            self.dialog.close()


def wait_for(condition, what: str):
    end_s = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < end_s, f"no {what}"
        time.sleep(0.05)
    return found


@pytest.fixture
def desktop():
    folder = Path(tempfile.mkdtemp(prefix="standin-portal"))  # short: a socket's path has 107 letters at most
    made = Desktop(folder)
    try:
        made.open()
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def camera(desktop):
    """Our camera with numbered pictures, from a process of its own."""
    program = Path(pictures.__file__).with_name("producer.py")
    command = [sys.executable, str(program), "sink", "", "--backend", "pipewire", "--fps", str(FPS)]
    environment = {**desktop.environment, "PYTHONPATH": str(Path(__file__).parents[2])}
    fed = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with fed:
        assert "opened" in fed.stdout.readline()
        yield fed
        fed.stdin.close()
        fed.wait(DEADLINE_S)


def look_once_found(browser: Browser) -> dict:
    """Chromium learns of cameras a moment after it has started: a page that asks at once may be told of none."""
    end_s = time.monotonic() + DEADLINE_S
    while (seen := browser.look(WIDTH, HEIGHT)).get("error") == "NotFoundError" and time.monotonic() < end_s:
        time.sleep(0.5)
    return seen


def test_chromium_sees_every_picture_through_the_portal(desktop, camera):
    browser = Browser("--enable-features=WebRtcPipeWireCamera", environment=desktop.environment)
    try:
        first, second = look_once_found(browser), browser.look(WIDTH, HEIGHT)
    finally:
        browser.close()
    for look in (first, second):
        assert "error" not in look, look
        assert any("Standin Camera" in name for name in look["cameras"]) and "Standin Camera" in look["label"]
        assert (look["width"], look["height"]) == (WIDTH, HEIGHT)
        numbers = [number for number in look["numbers"] if number is not None]
        assert len(numbers) >= 0.9 * len(look["numbers"]) and numbers == sorted(numbers)
        assert np.abs(np.array(look["bars"]) - pictures.BARS.astype(int)).max() <= 8
    assert desktop.dialog.asked >= 1
    print(f"{len(first['numbers'])} pictures, {len(set(first['numbers']))} different; {first['label']}")
