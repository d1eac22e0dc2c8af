"""Recordings, judged by ffprobe and by decoding them again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import av
import numpy as np
import pytest

from engine.errors import OutputError
from engine.media import CanvasFormat
from engine.sinks.base import PresentedFrame
from engine.sinks.recorder import Recorder

CANVAS = CanvasFormat(width=640, height=360, fps=25)
RATE_HZ = 44_100
needs_ffprobe = pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")


def _frame(tick: int, value: int) -> PresentedFrame:
    return PresentedFrame(image=np.full((360, 640, 3), value, np.uint8), tick=tick, frame=tick, due_s=tick / 25)


def _record(path, *, first_tick=0, ticks=75, event_at=50, rate_hz=RATE_HZ, **options) -> None:
    """A white picture and a click, both at tick `event_at`, in black silence."""
    recorder = Recorder(path, **options)
    recorder.open(CANVAS)
    for tick in range(first_tick, first_tick + ticks):
        start, end = tick * rate_hz // 25, (tick + 1) * rate_hz // 25
        sound = np.zeros((end - start, 2), np.float32)
        if tick - first_tick == event_at:
            sound[:100] = 0.9
        recorder.write_audio(sound, start, rate_hz)
        recorder.send(_frame(tick, 255 if tick - first_tick == event_at else 0))
    recorder.close()


def _offset_s(path) -> float:
    """Time of the click minus time of the white picture."""
    with av.open(str(path)) as file:
        flash = next(f.time for f in file.decode(video=0) if f.to_ndarray(format="gray").mean() > 127)
    with av.open(str(path)) as file:
        frames = [(float(f.time), f.to_ndarray()[0]) for f in file.decode(audio=0)]
    sound = np.concatenate([samples for _, samples in frames])
    return frames[0][0] + int((np.abs(sound) > 0.3).argmax()) / 48_000 - flash


def _probe(path) -> dict:
    command = ["ffprobe", "-v", "error", "-show_format", "-show_streams", "-of", "json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return json.loads(done.stdout)


@needs_ffprobe
def test_streams_are_what_every_player_takes(tmp_path):
    _record(tmp_path / "a.mp4")
    probe = _probe(tmp_path / "a.mp4")
    video, audio = probe["streams"]
    assert (video["codec_name"], video["pix_fmt"], video["width"], video["height"]) == (
        "h264",
        "yuv420p",
        640,
        360,
    )
    assert (video["r_frame_rate"], video["nb_frames"], video["color_space"]) == ("25/1", "75", "bt709")
    assert (audio["codec_name"], audio["sample_rate"]) == ("aac", "48000")
    for stream in probe["streams"]:
        assert float(stream["start_time"]) == 0.0
        assert float(stream["duration"]) == pytest.approx(3.0, abs=0.025)
    assert "AI avatar" in probe["format"]["tags"]["comment"]


@pytest.mark.parametrize("first_tick", [0, 1000])
@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
def test_sound_and_picture_are_together(tmp_path, first_tick, rate_hz):
    _record(tmp_path / "a.mp4", first_tick=first_tick, rate_hz=rate_hz)
    assert abs(_offset_s(tmp_path / "a.mp4")) < 0.002


def test_gap_overlap_and_change_of_rate_keep_time(tmp_path):
    recorder = Recorder(tmp_path / "a.mp4")
    recorder.open(CANVAS)
    recorder.write_audio(np.zeros((8000, 1), np.float32), 0, 16_000)  # 0 .. 0.5 s
    recorder.write_audio(np.zeros((48000, 2), np.float32), 48_000 // 4, 48_000)  # 0.25 .. 1.25 s: half of it is old
    click = np.zeros((441, 1), np.float32)
    click[:80] = 0.9
    recorder.write_audio(click, 2 * 44_100, 44_100)  # after a gap, at 2 s
    for tick in range(75):
        recorder.send(_frame(tick, 255 if tick == 50 else 0))
    recorder.close()
    assert abs(_offset_s(tmp_path / "a.mp4")) < 0.002


def test_a_night_that_the_computer_slept_is_left_out(tmp_path):
    recorder = Recorder(tmp_path / "a.mp4")
    recorder.open(CANVAS)
    slept = 8 * 3600 * 25
    for tick in range(75):
        at = tick if tick < 30 else tick + slept
        sound = np.zeros((RATE_HZ // 25, 1), np.float32)
        if tick == 50:
            sound[:100] = 0.9
        recorder.write_audio(sound, at * RATE_HZ // 25, RATE_HZ)
        recorder.send(_frame(at, 255 if tick == 50 else 0))
    recorder.close()
    assert abs(_offset_s(tmp_path / "a.mp4")) < 0.006
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert [round(float(f.time) * 25) for f in file.decode(video=0)] == list(range(75))
        assert file.duration / av.time_base == pytest.approx(3.0, abs=0.03)


def test_missing_pictures_leave_a_gap_in_time_not_a_shift(tmp_path):
    recorder = Recorder(tmp_path / "a.mp4")
    recorder.open(CANVAS)
    for tick in [*range(10), *range(40, 50)]:
        recorder.send(_frame(tick, 100))
    recorder.close()
    with av.open(str(tmp_path / "a.mp4")) as file:
        times = [round(float(f.time) * 25) for f in file.decode(video=0)]
    assert times == [*range(10), *range(40, 50)]


@pytest.mark.parametrize("contrast", [255, 2])
def test_killed_process_leaves_a_playable_file(tmp_path, contrast):
    """Also a calm picture's, of which eight seconds are less than the library keeps before it writes."""
    path = tmp_path / "a.mp4"
    script = f"""
        import os, signal, numpy as np
        from engine.sinks.recorder import Recorder
        from engine.sinks.base import PresentedFrame
        from engine.media import CanvasFormat
        recorder = Recorder({str(path)!r}); recorder.open(CanvasFormat(width=640, height=360, fps=25))
        noise = np.random.default_rng(0).integers(0, {contrast}, (360, 640, 3), np.uint8)
        for tick in range(200):
            recorder.write_audio(np.zeros((640, 1), np.float32), tick * 640, 16000)
            recorder.send(PresentedFrame(image=np.roll(noise, tick), tick=tick, frame=tick, due_s=0))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=os.getcwd(), timeout=150)
    assert done.returncode == -signal.SIGKILL
    with av.open(str(path)) as file:
        assert _readable_pictures(file) >= 100


def _readable_pictures(file) -> int:
    """Pictures up to where the file was cut off, as a player shows them."""
    count = 0
    try:
        for _ in file.decode(video=0):
            count += 1
    except av.error.InvalidDataError:
        pass
    return count


def test_full_disk_is_one_sentence(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", disk], capture_output=True).returncode
    if mounted:
        pytest.skip("no permission to mount a small disk")
    try:
        recorder = Recorder(disk / "a.mp4")
        recorder.open(CANVAS)
        noise = np.random.default_rng(0)

        def fill() -> None:
            for tick in range(400):
                image = noise.integers(0, 255, (360, 640, 3), np.uint8)
                recorder.send(PresentedFrame(image=image, tick=tick, frame=tick, due_s=0))

        with pytest.raises(OutputError) as caught:
            fill()
        assert caught.value.code == "output.disk_full" and "a.mp4" in caught.value.message
        with pytest.raises(OutputError):
            recorder.close()
        with av.open(str(disk / "a.mp4")) as file:
            assert _readable_pictures(file) >= 25
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_disk_that_is_full_in_the_middle_of_a_fragment_s_header_leaves_a_file_that_plays(tmp_path):
    resource = pytest.importorskip("resource")
    recorder = Recorder(tmp_path / "a.mp4")
    recorder.open(CANVAS)
    for tick in range(110):
        recorder.send(_frame(tick, 40))
    shutil.copy(tmp_path / "a.mp4", tmp_path / "so far.mp4")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    full = (tmp_path / "a.mp4").stat().st_size + 300
    resource.setrlimit(resource.RLIMIT_FSIZE, (full, hard))

    def fill() -> None:
        for tick in range(110, 210):
            recorder.send(_frame(tick, 40))

    try:
        with pytest.raises(OutputError):
            fill()
        assert (tmp_path / "a.mp4").stat().st_size == full
        with pytest.raises(OutputError):
            recorder.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "so far.mp4").read_bytes()
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert _readable_pictures(file) >= 50


def test_bad_targets_are_refused_before_anything_starts(tmp_path):
    def code(path, **options):
        with pytest.raises(OutputError) as caught:
            Recorder(path, **options)
        return caught.value.code

    (tmp_path / "there.mp4").write_bytes(b"x")
    (tmp_path / "folder.mp4").mkdir()
    assert code(tmp_path / "there.mp4") == "output.exists"
    assert code(tmp_path / "no" / "a.mp4") == "output.no_folder"
    assert code(tmp_path / "folder.mp4", may_replace=True) == "output.folder"
    assert code(tmp_path / "a.avi") == "output.format"
    assert (tmp_path / "there.mp4").read_bytes() == b"x"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.mp4", "there.mp4"]


def test_recording_without_a_picture_leaves_no_file(tmp_path):
    recorder = Recorder(tmp_path / "a.mp4")
    recorder.open(CANVAS)
    recorder.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ticks", [1, 2, 3])
def test_very_short_recordings_can_be_read(tmp_path, ticks):
    _record(tmp_path / "a.mp4", ticks=ticks, event_at=0)
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert sum(1 for _ in file.decode(video=0)) == ticks


def test_silenced_sound_is_not_in_the_file(tmp_path):
    """What others had not heard yet when it was muted is not on record, either; what comes afterwards is."""
    recorder = Recorder(tmp_path / "a.mp4")
    recorder.open(CANVAS)
    tone = 0.5 * np.sin(np.arange(48_000) / 10).astype(np.float32)[:, None]
    for tick in range(25):
        recorder.write_audio(tone[1920 * tick : 1920 * (tick + 1)], 1920 * tick, 48_000)
    for tick in range(10):
        recorder.send(_frame(tick, 0))
    recorder.silence()
    recorder.write_audio(tone, 48_000, 48_000)
    for tick in range(10, 50):
        recorder.send(_frame(tick, 0))
    recorder.close()
    with av.open(str(tmp_path / "a.mp4")) as file:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    loud = np.abs(sound[: 2 * 48_000]).reshape(-1, 480).max(axis=1) > 0.1
    assert loud[5:35].all() and not loud[45:95].any() and loud[105:].all()
