"""What real programs see of a camera that the product feeds: label, pixels, size, rate and order of pictures."""

from __future__ import annotations

import contextlib
import os

import pytest
from consumers import FfmpegReader, ask_v4l2_ctl, watch_with_ffmpeg, watch_with_opencv, watch_with_v4l2_ctl

CAMERA, SECOND, PLAIN = "/dev/video0", "/dev/video2", "/dev/video4"
LABELS = {CAMERA: "Standin Camera", SECOND: "Second Camera", PLAIN: "Plain Camera"}
COLOUR_TOLERANCE = 8
"""Steps of 255: limited range and rounding there and back take about 3."""


def check(seen, *, fps=None, share=0.2):
    """`fps` is the rate to come, which takes seconds to measure; `share` is how many pictures a watcher must catch, of
    which a busy computer lets it miss many."""
    assert (seen.width, seen.height) == (640, 360)
    assert seen.torn <= len(seen.numbers) // 20
    assert seen.new_numbers == sorted(seen.new_numbers), "pictures came out of order"
    assert seen.colour_error <= COLOUR_TOLERANCE
    assert seen.share > share
    assert fps is None or seen.sent_fps == pytest.approx(fps, rel=0.06)


@pytest.mark.parametrize("backend", ["v4l2", "pyvirtualcam"])
def test_ffmpeg_sees_every_numbered_picture_in_order(produce, figure, host_time, backend):
    host = host_time()
    producer = produce("sink", CAMERA, "--backend", backend)
    opened = producer.opened()
    assert opened["device"] == CAMERA and opened["label"] == LABELS[CAMERA]
    seen = watch_with_ffmpeg(CAMERA, 100)
    figure(f"ffmpeg watches {backend}", seen.figures())
    check(seen, fps=25, share=0.9 if host.was_free() else 0.2)
    end = producer.stop()
    figure(f"{backend} was fed", end)
    assert end["restarts"] == 0


def test_opencv_sees_the_pictures(produce, figure, only_with):
    only_with("0.15")
    producer = produce("sink", CAMERA)
    producer.opened()
    seen = watch_with_opencv(CAMERA, 100)
    figure("OpenCV", seen.figures())
    check(seen, fps=25)
    producer.stop()


def test_v4l2_ctl_sees_the_pictures_the_label_and_the_rate(produce, figure, tmp_path, only_with):
    only_with("0.12")
    producer = produce("sink", CAMERA)
    producer.opened()
    told = ask_v4l2_ctl(CAMERA, "--all", "--list-formats-ext")
    assert LABELS[CAMERA] in told
    assert "640/360" in told.replace(" ", "") and "YU12" in told
    assert "25.000 fps" in told, "programs are told another rate than the one that comes"
    assert "Video Output" not in told.split("Device Caps")[1].split("Priority")[0], "browsers would not list it"
    seen = watch_with_v4l2_ctl(CAMERA, 60, tmp_path)
    figure("v4l2-ctl", seen.figures())
    check(seen)
    producer.stop()


def test_thirty_frames_a_second(produce, figure, only_with):
    only_with("0.15")
    producer = produce("sink", CAMERA, "--fps", "30")
    producer.opened()
    seen = watch_with_ffmpeg(CAMERA, 100)
    figure("30 fps", seen.figures())
    check(seen, fps=30)
    producer.stop()


def test_hd_pictures_arrive_whole_and_the_producer_keeps_its_rate(produce, figure, only_with):
    """This machine copies pages slowly, so that a watcher of such pictures misses some."""
    only_with("0.15")
    producer = produce("sink", CAMERA, "--size", "1280x720")
    producer.opened()
    seen = watch_with_ffmpeg(CAMERA, 60, 1280, 720)
    figure("1280x720", seen.figures())
    assert (seen.width, seen.height) == (1280, 720)
    assert seen.new_numbers == sorted(seen.new_numbers)
    assert seen.torn <= 2 and seen.colour_error <= COLOUR_TOLERANCE
    assert seen.sent_fps == pytest.approx(25, rel=0.06)
    producer.stop()


def test_a_watcher_that_comes_goes_and_comes_back(produce, figure, only_with):
    only_with("0.12")
    producer = produce("sink", CAMERA)
    producer.opened()
    first = watch_with_ffmpeg(CAMERA, 30)
    second = watch_with_opencv(CAMERA, 30)
    third = watch_with_ffmpeg(CAMERA, 30)
    for seen in (first, second, third):
        check(seen)
    assert first.new_numbers[-1] < second.new_numbers[0] < second.new_numbers[-1] < third.new_numbers[0]
    figure("came back", [seen.figures() for seen in (first, second, third)])
    assert producer.stop()["restarts"] == 0


def test_two_watchers_at_once(produce, is_old_driver):
    """The new driver has room for one; the second is refused, and the first one and the producer notice nothing."""
    producer = produce("sink", CAMERA)
    producer.opened()
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(FfmpegReader(CAMERA, 640, 360))
        first.read(5)
        second = stack.enter_context(FfmpegReader(CAMERA, 640, 360))
        if is_old_driver:
            check(second.read(20))
        else:
            with pytest.raises(AssertionError, match="busy"):
                second.read(20)
        first.read(5)  # what has waited for us meanwhile
        check(first.read(20))
    assert producer.stop()["restarts"] == 0


def test_a_stuck_watcher_holds_nobody_up(produce, figure, only_with):
    """A reader that is stopped while it streams: the producer goes on, and the reader goes on where the clock is."""
    only_with("0.12")
    producer = produce("sink", CAMERA)
    producer.opened()
    with FfmpegReader(CAMERA, 640, 360) as reader:
        before = reader.read(10)
        os.kill(reader.pid, 19)
        try:
            watched = ask_v4l2_ctl(CAMERA, "--all")
        finally:
            os.kill(reader.pid, 18)
        after = reader.read(40)
    assert LABELS[CAMERA] in watched
    assert after.new_numbers == sorted(after.new_numbers) and after.new_numbers[0] > before.new_numbers[-1]
    end = producer.stop()
    figure("a stuck watcher", end)
    assert end["restarts"] == 0


def test_a_watcher_that_stays_goes_on_after_the_camera_was_started_anew(produce, figure, only_with):
    only_with("0.12")
    producer = produce("sink", CAMERA)
    producer.opened()
    with FfmpegReader(CAMERA, 640, 360) as reader:
        check(reader.read(25))
        producer.stop()
        again = produce("sink", CAMERA)
        again.opened()
        reader.read(8)  # what lay in the driver's buffers
        seen = reader.read(25)
        figure("watcher stayed", seen.figures())
        check(seen)
        again.stop()


def test_a_device_without_exclusive_caps_is_fed_and_said_to_be_hidden_from_browsers(produce, figure):
    from engine.camera.linux_devices import list_linux_cameras, lists_in_browsers

    cameras, reason = list_linux_cameras()
    assert {camera.device: camera.label for camera in cameras} == LABELS
    assert reason is None
    assert lists_in_browsers(CAMERA) and lists_in_browsers(SECOND)
    assert not lists_in_browsers(PLAIN)
    producer = produce("sink", PLAIN)
    assert producer.opened()["label"] == LABELS[PLAIN]
    check(watch_with_ffmpeg(PLAIN, 40))
    check(watch_with_opencv(PLAIN, 40))
    producer.stop()


def test_cameras_are_found_by_their_label(produce, only_with):
    only_with("0.15")
    producer = produce("sink", LABELS[SECOND])
    assert producer.opened()["device"] == SECOND
    check(watch_with_ffmpeg(SECOND, 30))
    producer.stop()
