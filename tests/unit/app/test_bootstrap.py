"""Opening and, above all, closing: at once for the eye, in order for the engine."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest
from PySide6.QtCore import QTimer


def test_closing_hides_the_window_at_once_and_the_loop_turns_on(qtbot, make_window):
    application = make_window("stubborn")
    qtbot.waitUntil(lambda: application.broadcast.is_live, timeout=10_000)
    pid, turns = application.client.pid, []
    ticker = QTimer()
    ticker.timeout.connect(lambda: turns.append(1))
    ticker.start(10)
    with qtbot.waitSignal(application.closed, timeout=10_000):
        application.window.close()
        assert not application.window.isVisible()
        assert psutil.pid_exists(pid), "nothing waited for the engine"
    ticker.stop()
    assert not psutil.pid_exists(pid)
    assert len(turns) > 5, "800 ms of asking and terminating did not block the loop"


def test_closing_twice_and_then_waiting_is_harmless(qtbot, make_window):
    application = make_window()
    qtbot.waitUntil(lambda: application.broadcast.is_live, timeout=10_000)
    application.close()
    application.window.close()
    application.finish()
    application.finish()
    assert application.client.pid == 0


def test_closing_before_the_engine_was_started(qtbot, make_window):
    application = make_window(is_open=False)
    with qtbot.waitSignal(application.closed):
        application.close()


_PROGRAM = """
import sys
from app import bootstrap, single_instance
from app.engine_client import process
process._STOP_WITHIN_MS = (100, 100, 5000)
class Application(bootstrap.Application):
    def __init__(self):
        super().__init__(command={command!r})
    def open(self):
        super().open()
        self.broadcast.availability_changed.connect(lambda: self.broadcast.is_live and self.went_live())
    def went_live(self):
        {went_live}
bootstrap.Application = Application
bootstrap.SingleInstance = lambda: single_instance.SingleInstance({socket!r})
sys.exit(bootstrap.run())
"""


def _run(command: list[str], went_live: str, folder) -> subprocess.CompletedProcess:
    script = _PROGRAM.format(command=command, went_live=went_live, socket=str(folder / "socket"))
    homes = {name: str(folder) for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    return subprocess.run(
        [sys.executable, "-c", script], env=os.environ | homes, capture_output=True, text=True, timeout=60, check=False
    )


def _left_over(folder) -> list:
    return [p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or [])]


def test_the_program_ends_with_its_window(fake_command, tmp_path, commands):
    """The whole of `run`, with an engine that has to be killed."""
    done = _run(fake_command("stubborn"), "self.window.close()", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert commands.all(), "the engine ran"
    assert _left_over(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot send itself Ctrl-C there")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_ctrl_c_ends_the_program_as_closing_does(fake_command, tmp_path, commands, name):
    went_live = f"import os, signal; os.kill(os.getpid(), signal.{name})"
    done = _run(fake_command("obedient"), went_live, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert commands.all() and _left_over(tmp_path) == []
