"""What a person is told when a camera cannot be fed, and that it comes back: with real drivers and real programs."""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from consumers import FfmpegReader, watch_with_ffmpeg

from engine.camera.backends import V4l2Camera
from engine.camera.linux_devices import list_linux_cameras
from engine.errors import CameraError

CAMERA, SECOND, PLAIN = "/dev/video0", "/dev/video2", "/dev/video4"
CTL_ADD, CTL_REMOVE = 0x4C80, 0x4C81
NOBODY, VIDEO_GROUP = 65534, 44

OPEN_AS = """
import json, os, sys, time
from engine.camera.backends import V4l2Camera
from engine.errors import CameraError
from engine.settings import CameraSettings
from engine.sinks.virtual_camera import open_camera
device, groups = sys.argv[1], [int(word) for word in sys.argv[2].split(",") if word]
os.setgroups(groups); os.setgid(65534); os.setuid(65534)
said = []
for attempt in (lambda: open_camera(CameraSettings(device=device)), lambda: V4l2Camera(device, 640, 360, 25)):
    try:
        attempt()
        said.append(["", "", ""])
    except CameraError as error:
        said.append([error.code, error.message, error.hint])
print(json.dumps(said))
"""


def open_as_nobody(device: str, groups: str = "") -> list[list[str]]:
    """What the probe and the open of an unprivileged user say: code, message, hint each."""
    done = subprocess.run(
        [sys.executable, "-c", OPEN_AS, device, groups], capture_output=True, text=True, timeout=60, check=True
    )
    return json.loads(done.stdout)


def problem_of(device: str):
    cameras, _ = list_linux_cameras()
    return next(camera.problem for camera in cameras if camera.device == device)


def camera_process_of(producer) -> int:
    """The number of the camera process that a producer's sink has started."""
    children = psutil.Process(producer.process.pid).children()
    return next(child.pid for child in children if "engine.camera.process" in child.cmdline())


@pytest.mark.parametrize("device", [CAMERA, PLAIN])
def test_a_second_producer_is_refused_with_the_name_of_the_first(produce, device):
    first = produce("sink", device)
    first.opened()
    with FfmpegReader(device, 640, 360) as reader:
        reader.read(10)
        refused = produce("sink", device).refused()
        assert refused["code"] == "camera.busy"
        assert f"Standin ({camera_process_of(first)})" in refused["message"], refused
        assert "ffmpeg" not in refused["message"], "ffmpeg only watches"
        seen = reader.read(20)
    assert seen.torn == 0 and seen.new_numbers == sorted(seen.new_numbers)
    assert first.stop()["restarts"] == 0


def test_who_opens_a_fed_camera_without_asking_first(produce, is_old_driver):
    """What is left where two start in the same moment: only 0.12 without exclusive_caps lets them both in."""
    for device in (CAMERA, PLAIN):
        first = produce("sink", device)
        first.opened()
        if is_old_driver and device == PLAIN:
            V4l2Camera(device, 640, 360, 25).close()
        else:
            with pytest.raises(CameraError) as caught:
                V4l2Camera(device, 640, 360, 25)
            assert caught.value.code == "camera.busy"
            assert f"Standin ({camera_process_of(first)})" in caught.value.message
        assert watch_with_ffmpeg(device, 10).torn == 0
        assert first.stop()["restarts"] == 0


def test_another_program_that_feeds_the_camera_is_named(produce, only_with):
    only_with("0.15")
    other = produce("pyvirtualcam", CAMERA)
    other.opened()
    watch_with_ffmpeg(CAMERA, 5)
    refused = produce("sink", CAMERA).refused()
    assert refused["code"] == "camera.busy" and f"python ({other.process.pid})" in refused["message"], refused
    # Without a wish for a certain device, the next free one is taken.
    free = produce("sink", "")
    assert free.opened()["device"] == SECOND
    free.stop()
    other.stop()


def test_another_size_is_refused_while_somebody_watches(produce, only_with):
    only_with("0.15")
    first = produce("sink", CAMERA)
    first.opened()
    with FfmpegReader(CAMERA, 640, 360) as reader:
        reader.read(10)
        first.stop()
        refused = produce("sink", CAMERA, "--size", "1280x720").refused()
        assert refused["code"] == "camera.format"
        assert "640 x 360" in refused["message"] and f"ffmpeg ({reader.pid})" in refused["message"], refused
        again = produce("sink", CAMERA)
        again.opened()
        reader.read(10)
        again.stop()
    wide = produce("sink", CAMERA, "--size", "1280x720")
    wide.opened()
    assert watch_with_ffmpeg(CAMERA, 10, 1280, 720).torn == 0
    wide.stop()


def test_without_permission_the_remedy_is_named_and_works(produce, only_with):
    only_with("0.15")
    os.chmod(CAMERA, 0o660)
    os.chown(CAMERA, 0, VIDEO_GROUP)
    for code, message, hint in open_as_nobody(CAMERA):
        assert code == "camera.permission" and CAMERA in message and "usermod -aG video" in hint
    assert [code for code, _, _ in open_as_nobody(CAMERA, str(VIDEO_GROUP))] == ["", ""]
    producer = produce("sink", CAMERA)
    producer.opened()
    watch_with_ffmpeg(CAMERA, 5)
    # Who may not look into the feeder's process is still told that there is one.
    (probed, opened) = open_as_nobody(CAMERA, str(VIDEO_GROUP))
    assert probed[0] == opened[0] == "camera.busy" and "another user" in probed[1]
    producer.stop()


def test_the_old_drivers_reopen_bug_is_named_and_repaired(produce, is_old_driver, figure):
    """0.12 forgets to offer output after a producer that only wrote; pyvirtualcam then finds no device at all."""
    other = produce("pyvirtualcam", CAMERA)
    other.opened()
    watch_with_ffmpeg(CAMERA, 5)
    other.stop()
    problem = problem_of(CAMERA)
    again = produce("pyvirtualcam", CAMERA)
    said = again.said()
    again.close()
    figure("pyvirtualcam, opened again", said)
    if is_old_driver:
        assert problem.code == "camera.no_output"
        assert "refused" in said, "the bug is gone: is the repair still needed?"
    else:
        assert problem is None and "opened" in said
    for _ in range(3):
        ours = produce("sink", CAMERA)
        ours.opened()
        assert watch_with_ffmpeg(CAMERA, 5).torn == 0
        ours.stop()
        assert problem_of(CAMERA) is None
    last = produce("pyvirtualcam", CAMERA)
    last.opened()
    last.stop()


def test_a_killed_camera_process_is_replaced_while_somebody_watches(produce, figure, only_with):
    only_with("0.12")
    producer = produce("sink", CAMERA)
    producer.opened()
    with FfmpegReader(CAMERA, 640, 360) as reader:
        reader.read(15)
        os.kill(camera_process_of(producer), signal.SIGKILL)
        killed_s = time.monotonic()
        seen = reader.read(40)
    times_s = [killed_s, *seen.times_s]
    gap_s = max(after - before for before, after in itertools.pairwise(times_s))
    figure("gap after the camera process was killed", round(gap_s, 2))
    assert seen.new_numbers == sorted(seen.new_numbers) and seen.torn == 0
    assert producer.stop()["restarts"] == 1


def test_a_killed_product_leaves_a_camera_that_starts_again(produce, only_with):
    """Everything of it is killed at once, while somebody watches, so that nothing could be repaired on the way out."""
    only_with("0.12")
    producer = produce("sink", CAMERA)
    producer.opened()
    with FfmpegReader(CAMERA, 640, 360) as reader:
        reader.read(10)
        os.kill(camera_process_of(producer), signal.SIGKILL)
        producer.process.kill()
        producer.process.wait()
        again = produce("sink", CAMERA)
        again.opened()
        assert reader.read(30).torn == 0
        again.stop()


def test_a_live_camera_cannot_be_removed_and_a_removed_one_is_missed(removable, produce, is_old_driver, figure):
    """v4l2loopback refuses to remove what is open. So a camera can go only between two openings of it."""
    producer = produce("sink", CAMERA)
    producer.opened()
    with FfmpegReader(CAMERA, 640, 360) as reader:
        reader.read(10)
        assert remove(CAMERA, is_old_driver) == errno.EBUSY
        assert reader.read(20).torn == 0, "the attempt must not disturb the picture"
    os.kill(camera_process_of(producer), signal.SIGKILL)
    assert until(lambda: remove(CAMERA, is_old_driver) == 0)
    failed = producer.said()["failed"]
    figure("removed while live", failed)
    assert failed["code"] == "camera.missing" and CAMERA in failed["message"]
    if is_old_driver:
        assert list_linux_cameras()[1].code in ("camera.not_loaded", "camera.no_driver")
    else:
        refused = produce("sink", CAMERA).refused()
        assert refused["code"] == "camera.missing"
    bring_back(is_old_driver)
    again = produce("sink", CAMERA)
    again.opened()
    assert watch_with_ffmpeg(CAMERA, 10).torn == 0
    again.stop()


@pytest.fixture
def removable(is_old_driver):
    """Whatever becomes of the test, the next one finds the camera. Set up before `produce`, this ends after it."""
    yield
    if not Path(CAMERA).exists():
        bring_back(is_old_driver)


def bring_back(is_old_driver: bool) -> None:
    if is_old_driver:
        insert()
    else:
        add(CAMERA)


def until(condition, timeout_s: float = 30.0) -> bool:
    end_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.02)
    return True


def remove(device: str, is_old_driver: bool) -> int:
    """0 or the error number: the whole driver with 0.12, which can do nothing less, else one device."""
    if is_old_driver:
        done = subprocess.run(["rmmod", "v4l2loopback"], capture_output=True, text=True)
        return 0 if done.returncode == 0 else errno.EBUSY
    return control(CTL_REMOVE, int(device.removeprefix("/dev/video")))


def control(request: int, argument) -> int:
    descriptor = os.open("/dev/v4l2loopback", os.O_RDWR)
    try:
        fcntl.ioctl(descriptor, request, argument)
        return 0
    except OSError as error:
        return error.errno
    finally:
        os.close(descriptor)


def add(device: str) -> None:
    """As `v4l2loopback-ctl add -n "Standin Camera" -x 1 /dev/videoN`; struct v4l2_loopback_config of v4l2loopback.h."""
    number = int(device.removeprefix("/dev/video"))
    config = struct.pack("<ii32s4I4i", number, 0, b"Standin Camera", 0, 0, 0, 0, 0, 0, 0, 0)
    descriptor = os.open("/dev/v4l2loopback", os.O_RDWR)
    try:
        fcntl.ioctl(descriptor, CTL_ADD, config)
    finally:
        os.close(descriptor)


def insert() -> None:
    options = Path("/out/module_options").read_text().splitlines()
    subprocess.run(["insmod", os.environ["STANDIN_CAMERA_KO"], *options], check=True)
