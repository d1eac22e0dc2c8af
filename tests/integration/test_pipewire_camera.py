"""The PipeWire camera in a private server, watched by GStreamer: a program that shares no code with ours."""

from __future__ import annotations

import contextlib
import json
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

from engine.camera.pipewire_system import PipewireSystem, pipewire_camera
from engine.errors import CameraError
from engine.media import CanvasFormat
from engine.settings import CameraSettings
from engine.sinks.base import PresentedFrame
from engine.sinks.virtual_camera import list_cameras, open_camera

TOOLS = ("pipewire", "wireplumber", "pw-dump", "gst-launch-1.0", "dbus-run-session")
WIDTH, HEIGHT, FPS, BITS = 320, 240, 30, 16
COLOURS = ((200, 50, 100), (20, 180, 60), (128, 128, 128), (250, 250, 20))
DEADLINE_S = 20.0


def wait_for(condition, what: str):
    end_s = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < end_s, f"no {what}"
        time.sleep(0.05)
    return found


class Server:
    """PipeWire and WirePlumber of the test's own, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ, "XDG_RUNTIME_DIR": str(folder), "HOME": str(folder), "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CONFIG_HOME": str(folder / "config"),
        }  # fmt: skip
        for name in ("PIPEWIRE_REMOTE", "PIPEWIRE_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"):
            self.environment.pop(name, None)
        self.start()

    def start(self) -> None:
        script = "pipewire & for i in $(seq 100); do test -e $XDG_RUNTIME_DIR/pipewire-0 && break; sleep 0.05; done; "
        self._log = open(self.folder / "log", "ab")  # noqa: SIM115
        self._session = subprocess.Popen(
            ["dbus-run-session", "--", "sh", "-c", script + "exec wireplumber"],
            env=self.environment, stdout=self._log, stderr=self._log,
        )  # fmt: skip
        try:
            wait_for(lambda: "WirePlumber" in self._dump_text(), "session manager")
        except BaseException:
            self.stop()  # no fixture would
            raise

    def process(self, name: str) -> psutil.Process:
        children = psutil.Process(self._session.pid).children(recursive=True)
        return next(child for child in children if child.name() == name)

    def dump(self) -> list[dict]:
        text = self._dump_text()
        try:
            # A second list follows where something changed meanwhile.
            return json.JSONDecoder().raw_decode(text)[0] if text.startswith("[") else []
        except ValueError:
            return []  # the server went away meanwhile

    def cameras(self) -> list[dict]:
        """What there is of nodes that programs list as cameras."""
        # Of what has just gone there is a number without a type.
        nodes = [one for one in self.dump() if one.get("type") == "PipeWire:Interface:Node"]
        infos = [one["info"] for one in nodes if one.get("info")]
        return [info for info in infos if info["props"].get("media.class") == "Video/Source"]

    def stop(self) -> None:
        """All at once, and waits no longer than they take to die: the product gives a server up after some seconds."""
        family = [*psutil.Process(self._session.pid).children(recursive=True), psutil.Process(self._session.pid)]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        self._session.wait(DEADLINE_S)
        wait_for(lambda: not any(_is_alive(member) for member in family), "end of the server")
        self._log.close()
        (self.folder / "pipewire-0").unlink(missing_ok=True)

    def _dump_text(self) -> str:
        try:
            done = subprocess.run(["pw-dump"], env=self.environment, capture_output=True, text=True, timeout=10)
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout


def _is_alive(process: psutil.Process) -> bool:
    """One whose parent is dead, too, may stay a zombie for a while: of that nothing is left but its number."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Viewer:
    """A program that watches: GStreamer's pipewiresrc, with the number in each picture and what was sent by then."""

    def __init__(self, server: Server, sent, pixel_format: str = "YUY2") -> None:
        self.size = WIDTH * HEIGHT * 2 if pixel_format == "YUY2" else WIDTH * HEIGHT * 3 // 2
        self.pixel_format, self._sent = pixel_format, sent
        self.numbers: list[int] = []
        self.behind: list[int] = []
        self.last = b""
        self._process = subprocess.Popen(
            ["gst-launch-1.0", "-q", "pipewiresrc", "target-object=standin-camera", "!",
             f"video/x-raw,format={pixel_format}", "!", "fdsink", "fd=1"],
            env=server.environment, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait(self, count: int) -> None:
        goal = len(self.numbers) + count
        wait_for(lambda: len(self.numbers) >= goal, f"{count} pictures")

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def leave(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(5)
        self._process.stdout.close()

    def _read(self) -> None:
        while len(data := self._process.stdout.read(self.size)) == self.size:
            luma = np.frombuffer(data, np.uint8)
            luma = luma.reshape(HEIGHT, -1)[:, ::2] if self.pixel_format == "YUY2" else luma[: WIDTH * HEIGHT]
            blocks = luma.reshape(HEIGHT, WIDTH)[8, WIDTH // BITS // 2 :: WIDTH // BITS]
            number = sum(1 << bit for bit, value in enumerate(blocks) if value > 128)
            self.behind.append(self._sent() - number)
            self.last = data
            self.numbers.append(number)


class Pacer:
    """Numbered pictures into the product's camera, 30 times a second."""

    def __init__(self) -> None:
        self.camera = open_camera(CameraSettings(backend="pipewire"))
        try:
            self.camera.open(CanvasFormat(width=WIDTH, height=HEIGHT, fps=FPS))
        except BaseException:
            self.camera.close()  # no fixture would
            raise
        self.number, self.error, self.is_paused = 0, None, False
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()
        self.camera.close()

    @property
    def child(self) -> psutil.Process:
        return next(c for c in psutil.Process().children() if "engine.camera.process" in c.cmdline())

    def _run(self) -> None:
        next_s = time.monotonic()
        while not self._is_over.wait(max(0.0, next_s - time.monotonic())):
            next_s = max(next_s + 1 / FPS, time.monotonic())
            if self.is_paused:
                continue
            self.number += 1
            try:
                self.camera.send(_frame(self.number))
            except CameraError as error:
                self.error = error
                return


def _frame(number: int) -> PresentedFrame:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for bit in range(BITS):
        image[:16, bit * WIDTH // BITS : (bit + 1) * WIDTH // BITS] = 255 if number >> bit & 1 else 0
    for index, colour in enumerate(COLOURS):
        image[16:, index * WIDTH // 4 : (index + 1) * WIDTH // 4] = colour
    return PresentedFrame(image=image, tick=number, frame=number, due_s=0.0)


@pytest.fixture(scope="module")
def server():
    missing = [name for name in TOOLS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")
    has_source = subprocess.run(["gst-inspect-1.0", "pipewiresrc"], capture_output=True)
    if has_source.returncode:
        pytest.skip("GStreamer's pipewiresrc (gstreamer1.0-pipewire) is not installed")
    folder = Path(tempfile.mkdtemp(prefix="standin-pw"))  # short: a socket's path has 107 letters at most
    try:
        started = Server(folder)
        yield started
        started.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def pacer(server, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(server.folder))
    monkeypatch.delenv("PIPEWIRE_REMOTE", raising=False)
    monkeypatch.delenv("PIPEWIRE_RUNTIME_DIR", raising=False)
    started = Pacer()
    yield started
    started.close()


@pytest.fixture
def watch(server, pacer):
    viewers = []

    def start(pixel_format: str = "YUY2") -> Viewer:
        viewers.append(Viewer(server, lambda: pacer.number, pixel_format))
        return viewers[-1]

    yield start
    for viewer in viewers:
        viewer.leave()


def _colours(viewer: Viewer) -> np.ndarray:
    """The four patches as RGB by the formula of ITU-R BT.601, limited range."""
    data = np.frombuffer(viewer.last, np.uint8).astype(float)
    columns = [WIDTH // 8 + index * WIDTH // 4 for index in range(4)]
    if viewer.pixel_format == "YUY2":
        pairs = data.reshape(HEIGHT, WIDTH // 2, 4)[HEIGHT // 2, [column // 2 for column in columns]]
        y, u, v = pairs[:, 0], pairs[:, 1], pairs[:, 3]
    else:
        y = data[: WIDTH * HEIGHT].reshape(HEIGHT, WIDTH)[HEIGHT // 2, columns]
        planes = data[WIDTH * HEIGHT :].reshape(2, HEIGHT // 2, WIDTH // 2)
        u, v = planes[:, HEIGHT // 4, [column // 2 for column in columns]]
    y, u, v = (y - 16) * 255 / 219, (u - 128) * 255 / 224, (v - 128) * 255 / 224
    return np.stack([y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u], axis=1)


def test_listed_as_a_camera_with_the_name_that_people_know(server, pacer):
    (node,) = wait_for(server.cameras, "camera")
    told = {key: node["props"].get(key) for key in ("node.name", "node.description", "media.role")}
    assert told == {"node.name": "standin-camera", "node.description": "Standin Camera", "media.role": "Camera"}
    offers = node["params"]["EnumFormat"]
    assert [offer["format"] for offer in offers] == ["YUY2", "I420"]
    for offer in offers:
        assert offer["size"] == {"width": WIDTH, "height": HEIGHT} and offer["framerate"] == {"num": FPS, "denom": 1}
    assert (pacer.camera.label, pacer.camera.device) == ("Standin Camera", "standin-camera")


@pytest.mark.parametrize("pixel_format", ["YUY2", "I420"])
def test_pictures_arrive_in_order_whole_and_in_their_colours(watch, pixel_format):
    viewer = watch(pixel_format)
    viewer.wait(90)
    steps = np.diff(viewer.numbers[30:])  # what is lost while the viewer itself starts is missing sixteen buffers later
    # A busy machine may lose some, never repeat or turn round; a race in handing over would lose one in twenty.
    assert (steps > 0).all() and np.median(steps) == 1 and (steps - 1).sum() <= len(steps) // 10
    assert np.abs(_colours(viewer) - COLOURS).max() <= 3


def test_threads_that_pictures_pass_have_priority(pacer, watch):
    """Both of ours: the one that is given pictures, and the library's for data, which has none by itself."""
    watch().wait(10)
    policies = [os.sched_getscheduler(thread.id) for thread in pacer.child.threads()]
    ours = policies.count(os.SCHED_RR | os.SCHED_RESET_ON_FORK)
    if ours == 0:
        pytest.skip("no real-time priority for this user")
    assert ours == 2, policies


def test_viewers_come_and_go(server, pacer, watch):
    first = watch()
    first.wait(10)
    second = watch("YUY2")
    second.wait(10)
    first.wait(10)
    first.leave()
    second.wait(20)
    second.leave()
    wait_for(lambda: [node["state"] for node in server.cameras()] == ["suspended"], "rest")
    third = watch("I420")
    third.wait(20)
    assert third.numbers[0] > second.numbers[-1] and pacer.camera.restarts == 0


def test_pictures_that_pause_come_again(pacer, watch):
    """Also for somebody who began to watch in between: the camera is there before a slow generator's first picture."""
    early = watch()
    early.wait(10)
    pacer.is_paused = True
    late = watch()
    time.sleep(2)
    pacer.is_paused = False
    for viewer in (early, late):
        viewer.wait(20)
    # Behind for good would be so in each of them; a busy machine is late with some.
    assert min(late.behind[-10:]) <= max(early.behind[:10]) + 2 and pacer.camera.restarts == 0


def test_buffer_of_a_viewer_that_left_while_pictures_paused_costs_no_pictures(pacer, watch):
    """It stays taken for good: one in sixteen would be lost. A busy machine may lose some, but not so evenly."""
    early = watch()
    early.wait(10)
    pacer.is_paused = True
    time.sleep(1)
    early.leave()
    late = watch()
    time.sleep(1)
    pacer.is_paused = False
    wait_for(lambda: _longest_run(late.numbers) >= 24, "24 pictures in a row")
    assert pacer.camera.restarts == 0


def _longest_run(numbers: list[int]) -> int:
    """The most numbers that follow each other without a gap."""
    ends = np.flatnonzero(np.diff(numbers) != 1)
    return int(np.diff([-1, *ends, len(numbers) - 1]).max())


def test_frozen_viewer_stops_nobody_and_catches_up(pacer, watch):
    viewer, other = watch(), watch()
    viewer.wait(30)
    other.wait(1)
    usual = max(viewer.behind[10:30])
    viewer.signal(signal.SIGSTOP)
    try:
        at = pacer.number
        other.wait(60)
        assert pacer.number >= at + 30 and min(other.behind[-10:]) <= usual + 3
    finally:
        viewer.signal(signal.SIGCONT)
    viewer.wait(60)
    assert min(viewer.behind[-20:]) <= usual, (usual, viewer.behind)
    assert pacer.camera.restarts == 0 and pacer.error is None


def test_frozen_server_does_not_hold_the_pacer(server, pacer, watch):
    viewer = watch()
    viewer.wait(10)
    frozen = server.process("pipewire")
    frozen.suspend()
    try:
        at = pacer.number
        wait_for(lambda: pacer.number >= at + 4 * FPS, "pictures sent")  # longer than a hung driver is suffered
    finally:
        frozen.resume()
    viewer.wait(30)
    assert pacer.camera.restarts == 0 and pacer.error is None


def test_killed_process_is_replaced_by_one_node(server, pacer, watch):
    before = wait_for(server.cameras, "camera")[0]["props"]["object.serial"]
    pacer.child.kill()
    wait_for(lambda: [c for c in server.cameras() if c["props"]["object.serial"] != before], "new node")
    wait_for(lambda: len(server.cameras()) == 1, "end of the old node")
    assert pacer.camera.restarts == 1
    watch().wait(10)


def test_closing_takes_the_node_away(server, pacer):
    wait_for(server.cameras, "camera")
    child = pacer.child
    pacer.close()
    wait_for(lambda: not server.cameras(), "end of the node")
    assert not child.is_running()


def test_dead_engine_leaves_no_camera(server, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(server.folder))
    script = (
        "from engine.settings import CameraSettings; from engine.sinks.virtual_camera import open_camera\n"
        "from engine.media import CanvasFormat; import time\n"
        "c = open_camera(CameraSettings(backend='pipewire')); c.open(CanvasFormat(width=64, height=36, fps=25))\n"
        "time.sleep(600)"
    )
    engine = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": os.getcwd()})
    try:
        wait_for(server.cameras, "camera")
        children = psutil.Process(engine.pid).children(recursive=True)
        assert children
    finally:
        engine.kill()
        engine.wait()
    wait_for(lambda: not server.cameras(), "end of the node")
    assert psutil.wait_procs(children, DEADLINE_S)[1] == []


def test_restarted_server_gets_the_camera_again(server, pacer, watch):
    watch().wait(5)
    server.stop()
    server.start()
    wait_for(server.cameras, "camera")
    watch().wait(10)
    assert pacer.error is None and pacer.camera.restarts >= 1


def test_hung_server_is_named_when_opening(server, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(server.folder))
    camera = open_camera(CameraSettings(backend="pipewire"))
    frozen = server.process("pipewire")
    frozen.suspend()
    try:
        with pytest.raises(CameraError) as caught:
            camera.open(CanvasFormat(width=64, height=36, fps=25))
    finally:
        frozen.resume()
        camera.close()
    assert caught.value.code == "camera.pipewire_hangs" and "restart" in caught.value.hint


def test_listing_knows_the_real_server(server, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(server.folder))
    assert list_cameras()[0][-1].backend == "pipewire" and list_cameras()[0][-1].problem is None
    manager = server.process("wireplumber")
    assert pipewire_camera(PipewireSystem()).problem is None and manager.is_running()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(server.folder / "nowhere"))
    assert pipewire_camera().problem.code == "camera.pipewire_missing"
