"""The engine of a live session with FlashTalk is killed while its ranks compute: the camera process gives its device
back and leaves, and no process, no shared memory, no folder and no open port stays behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

pytest.importorskip("torch", reason="ranks are torch processes")
pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).resolve().parents[2]
MARK = "STANDIN_TEST_OF_A_KILLED_ENGINE"
ENGINE = """
import sys
from engine.generators import factory
from engine.protocol.messages import SessionState, StateChanged
from engine.settings import CameraSettings, CanvasSettings, GeneratorSettings, SessionSettings
from engine.stream.broadcast import Broadcast

def tell(event):
    if isinstance(event, StateChanged):
        print(event.state.value, flush=True)

factory._GENERATORS["flashtalk"] = "killed_engine:ranked"
Broadcast(
    SessionSettings(
        portrait="sample:",
        generator=GeneratorSettings(name="flashtalk"),
        canvas=CanvasSettings(width=640, height=360, fill="solid"),
        camera=CameraSettings(device=sys.argv[1], backend="killed_engine:Camera"),
    ),
    tell,
).start()
sys.stdin.read()
"""
MODULE = """
import dataclasses
import json
import os
from engine.worker import group
from engine.worker.flashtalk import RankedFlashTalk

group._LEAST_PATIENCE_S = 100.0  # for as long as the test needs, the ranks are not given up

def ranked(*, seed, fps):
    made = RankedFlashTalk(seed=seed, fps=fps, ranks=2, timeout_s=100.0, **json.loads(os.environ["MODEL"]))
    options = {**dict(made._settings.options), "folder": os.environ["TROUBLE"], "others": ""}
    made._settings = dataclasses.replace(
        made._settings, generator="rank_flashtalk:Troubled", options=tuple(options.items())
    )
    return made

class Camera:
    def __init__(self, device, width, height, fps):
        self.label, self.device = "Test Camera", device
        self.file = open(device, "a", buffering=1)
    def send(self, image):
        self.file.write(f"frame {image[180, 320, 0]}\\n")
    def close(self):
        self.file.write("close\\n")
"""


@pytest.fixture
def place(tmp_path, monkeypatch, tiny_checkpoint):
    """Where everything is that the engine makes; all its processes are marked with it."""
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:  # short: a socket's path has little room
        (tmp_path / "killed_engine.py").write_text(MODULE)
        model, speech = map(str, tiny_checkpoint)
        options = {"checkpoint": model, "speech_encoder": speech, "size": "32x32", "steps": 2, "device": "cpu"}
        paths = (ROOT / "tests" / "fixtures", ROOT, tmp_path)
        for name, value in {
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "TROUBLE": str(tmp_path),
            "MODEL": json.dumps(options),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "TMPDIR": folder,
            MARK: folder,
        }.items():
            monkeypatch.setenv(name, value)
        yield folder


def _family(place: str) -> list[psutil.Process]:
    processes = psutil.process_iter(["environ"])
    return [one for one in processes if one.pid != os.getpid() and (one.info["environ"] or {}).get(MARK) == place]


def _segments(family) -> set[str]:
    """Names of the shared memory that any of them uses."""
    names = set()
    for process in family:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            maps = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
            names |= {line.split("/dev/shm/")[1] for line in maps if "/dev/shm/" in line and "(deleted)" not in line}
    return names


def _doors(family) -> set[int]:
    doors = []
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            doors += process.net_connections(kind="inet")
    return {door.laddr.port for door in doors if door.status == psutil.CONN_LISTEN}


def _programs(family) -> str:
    """All their command lines."""
    lines = []
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            lines.append(json.dumps(process.cmdline()))
    return " ".join(lines)


def _until(condition, timeout_s: float = 300.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc and /dev/shm")
def test_nothing_is_left_of_a_killed_engine(place, tmp_path):
    device = tmp_path / "camera"
    device.touch()
    with subprocess.Popen(
        [sys.executable, "-c", ENGINE, str(device)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as engine:
        _until(lambda: engine.stdout.readline() == "live\n")
        _until(lambda: "frame" in device.read_text())
        (tmp_path / "new").write_text("1 stand any")
        (tmp_path / "new").replace(tmp_path / "trouble")
        _until((tmp_path / "stands").exists)  # no chunk ends any more: ranks are in the middle of one
        family = _family(place)
        segments, doors, programs = _segments(family), _doors(family), _programs(family)
        assert programs.count("engine.worker.rank") == 2 and "engine.camera.process" in programs
        assert segments, "the pictures' way to the camera process has a name"
        assert doors
        engine.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=30.0)
    _until(lambda: not _family(place), timeout_s=10.0)
    assert alive == [] and os.listdir(place) == []
    _until(lambda: not segments & set(os.listdir("/dev/shm")), timeout_s=10.0)
    for port in doors:
        with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.1", port), timeout=5.0):
            pass
    lines = device.read_text().splitlines()
    assert lines[-1] == "close" and lines.count("close") == 1, "the camera process has given its device back"
