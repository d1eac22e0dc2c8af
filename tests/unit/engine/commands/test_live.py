"""`standin live`: what ends it, what it writes, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import signal
import threading

import av
import numpy as np
import pytest
import soundfile

from engine import cli
from engine.commands import live
from engine.errors import GeneratorError
from engine.protocol.messages import CameraChanged, Noticed, Reason, SessionState, StateChanged, Stats, VoiceOutChanged
from engine.settings import FileSource, MicrophoneSource, SilentSource
from engine.sinks import virtual_camera


@pytest.fixture
def standin(grey_portrait, capsys, monkeypatch):
    """Runs `standin live` on a small canvas in this process: (exit status, standard output, standard error)."""
    monkeypatch.setattr(cli, "set_up_logging", lambda **_: None)

    def run(*arguments, camera=False):
        common = ["live", "--portrait", grey_portrait, "--canvas", "640x360", *([] if camera else ["--no-camera"])]
        status = cli.main([str(a) for a in (*common, *arguments)])
        out, error = capsys.readouterr()
        return status, out, error

    return run


@pytest.fixture
def words(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(32_000, 0.1, np.float32), 16_000)
    return tmp_path / "a.wav"


def test_file_is_spoken_once_and_everything_is_written(standin, words, tmp_path):
    status, out, _ = standin("--audio", words, "--record", tmp_path / "o.mp4", "--stats", tmp_path / "s.json")
    assert status == 0 and "Live." in out and f"Recorded: {tmp_path / 'o.mp4'}" in out
    stats = json.loads((tmp_path / "s.json").read_text())
    assert stats["presented"] >= 6 and stats["missing_samples"] == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "o.mp4", "p.png", "s.json"]
    with av.open(str(tmp_path / "o.mp4")) as file:
        assert sum(1 for _ in file.decode(video=0)) >= 6


def test_seconds_end_it(standin):
    status, out, _ = standin("--mic", "none", "--seconds", 0.3)
    assert status == 0 and " frames in " in out


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_seconds_that_are_none(standin, seconds):
    status, _, error = standin("--mic", "none", "--seconds", seconds)
    assert status == 2 and "no time" in error


@pytest.mark.parametrize("seconds", ["1e300", "inf"])
def test_endless_seconds_end_with_the_file(standin, words, seconds):
    assert standin("--audio", words, "--seconds", seconds)[0] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_it_in_order_and_handlers_are_put_back(standin, tmp_path, number):
    before = signal.getsignal(number)

    def send():
        # Before the command listens, the signal would end the tests.
        while signal.getsignal(number) is before and not is_over.wait(0.05):
            pass
        if not is_over.wait(0.7):
            os.kill(os.getpid(), number)

    is_over = threading.Event()
    sender = threading.Thread(target=send)
    sender.start()
    status, _, error = standin("--mic", "none", "--stats", tmp_path / "s.json", "--seconds", 60)
    is_over.set()
    sender.join()
    assert status == 0 and "Traceback" not in error
    assert json.loads((tmp_path / "s.json").read_text())["time_s"] < 50
    assert signal.getsignal(number) is before


def test_json_is_one_event_a_line(standin):
    _, out, error = standin("--mic", "none", "--seconds", 3, "--json")
    kinds = [json.loads(line)["type"] for line in out.splitlines()]
    assert {"state_changed", "progressed", "stats"} <= set(kinds) and error == ""


def test_stats_that_cannot_be_written_are_refused_before_anything_begins(standin, tmp_path):
    (tmp_path / "folder").mkdir()
    for path, code in ((tmp_path / "no" / "s.json", "does not exist"), (tmp_path / "folder", "is a folder")):
        status, out, error = standin("--mic", "none", "--stats", path, "--seconds", 5)
        assert status == 1 and code in error and "Live" not in out


def test_stats_that_fail_at_the_end_leave_no_draft(tmp_path):
    (tmp_path / "s.json").mkdir()
    with pytest.raises(Exception, match="could not be written"):
        live._write_stats(tmp_path / "s.json", Stats())
    assert [p.name for p in tmp_path.iterdir()] == ["s.json"]


def test_old_stats_are_replaced(standin, tmp_path):
    (tmp_path / "s.json").write_text("old")
    assert standin("--mic", "none", "--stats", tmp_path / "s.json", "--seconds", 0.2)[0] == 0
    assert json.loads((tmp_path / "s.json").read_text())["type"] == "stats"


def test_unknown_microphone_is_waited_for_and_said(standin):
    status, out, error = standin("--mic", "Nothing At All", "--seconds", 0.5)
    assert status == 1 and 'The microphone "Nothing At All" is not there' in out + error and "Traceback" not in error


def test_no_camera_driver_is_said_before_the_portrait_is_prepared(standin, monkeypatch):
    reason = Reason(code="camera.no_driver", message="No camera driver.", hint="Install one.")
    monkeypatch.setattr(virtual_camera, "list_cameras", lambda: ([], reason))
    status, out, error = standin("--mic", "none", "--seconds", 5, camera=True)
    assert status == 1 and "standin: No camera driver. Install one." in error
    assert "prepare" not in out + error
    status, _, error = standin("--mic", "none", "--seconds", 5, "--camera", "Nowhere", camera=True)
    assert status == 1 and 'no virtual camera "Nowhere"' in error


def test_recording_is_kept_unless_forced_and_until_there_is_another(standin, words, tmp_path):
    target = tmp_path / "o.mp4"
    target.write_bytes(b"precious")
    status, _, error = standin("--audio", words, "--record", target)
    assert status == 1 and "exists already" in error and target.read_bytes() == b"precious"
    status, _, _ = standin("--audio", tmp_path / "none.wav", "--record", target, "--force")
    assert status == 1 and target.read_bytes() == b"precious", "a start that failed has replaced nothing"
    assert standin("--audio", words, "--record", target, "--force")[0] == 0
    with av.open(str(target)) as file:
        assert sum(1 for _ in file.decode(video=0)) >= 6


def test_something_given_up_on_the_way_is_exit_status_1(standin, monkeypatch, caplog):
    from engine.stream import scene as scene_module

    create = scene_module.create_generator

    def fragile(*arguments, **options):
        generator = create(*arguments, **options)
        calls, resets, reset = [], [], generator.reset

        def generate(chunk, frames):
            calls.extend([chunk] if resets else [])  # those of the warm-up, which ends with a reset, do not count
            if len(calls) == 10:
                raise GeneratorError("It broke.", hint="Wait.")
            frames.next_image()
            frames.commit(chunk.first_frame)

        generator.generate, generator.reset = generate, lambda: (resets.append(1), reset())
        return generator

    monkeypatch.setattr(scene_module, "create_generator", fragile)
    status, out, _ = standin("--mic", "none", "--seconds", 3)
    assert status == 1 and "Error: It broke. Wait." in out


def _parsed(*arguments):
    return live._settings(cli._parser().parse_args(["live", "--portrait", "p.png", *arguments]))


def test_options_become_settings():
    settings = _parsed("--mic", "Yeti", "--mic-api", "ALSA", "--camera", "/dev/video9", "--voice-out", "default")
    assert settings.source == MicrophoneSource(name="Yeti", host_api="ALSA")
    assert settings.camera.device == "/dev/video9" and settings.voice_out.name == ""
    assert settings.recording == "" and not settings.may_replace_recording
    assert _parsed("--mic", "default").source == _parsed().source == MicrophoneSource()
    assert _parsed("--mic", "none").source == SilentSource()
    assert _parsed("--audio", "a.wav").source == FileSource(path="a.wav")
    assert _parsed("--voice-out", "virtual").voice_out.name == "standin:virtual"
    assert _parsed("--voice-out", "Speakers").voice_out.name == "Speakers"
    assert _parsed("--no-camera").camera is None and _parsed().voice_out is None


def test_microphone_and_file_exclude_each_other():
    with pytest.raises(SystemExit) as ended:
        _parsed("--mic", "a", "--audio", "b.wav")
    assert ended.value.code == 2


def test_what_a_person_is_told(capsys):
    teller = live._Teller(as_json=False)
    reason = Reason(code="x", message="It is so.", hint="Do this.")
    teller.tell(Noticed(reason=reason))
    assert not teller.has_given_up
    teller.tell(CameraChanged(is_open=True, label="Standin Camera", device="/dev/video42"))
    teller.tell(CameraChanged(is_open=False))
    teller.tell(VoiceOutChanged(is_open=True, label="CABLE Input", microphone="CABLE Output"))
    teller.tell(VoiceOutChanged(is_open=True, label="Speakers"))
    teller.tell(VoiceOutChanged(is_open=False))
    teller.tell(StateChanged(state=SessionState.FALLBACK, reason=reason))
    teller.tell(StateChanged(state=SessionState.STOPPING, reason=reason))
    teller.tell(Noticed(reason=reason, is_error=True))
    assert teller.has_given_up
    assert capsys.readouterr().out.splitlines() == [
        "Note: It is so. Do this.",
        'Camera on: pick "Standin Camera" in your call (/dev/video42).',
        'Voice on: pick the microphone "CABLE Output" in your call.',
        "It is so. Do this.",
        "Error: It is so. Do this.",
    ]


@pytest.mark.parametrize(("level", "marks"), [(-120.0, 0), (-30.0, 6), (0.0, 12)])
def test_stats_line_has_time_meter_and_lip_sync(level, marks):
    line = live._stats_line(Stats(time_s=75.2, fps=25.0, level_dbfs=level, latency_ms=120.0, av_offset_ms=-3.0))
    assert line.startswith("01:15  25.0 fps  120 ms behind you") and line.count("#") == marks
    assert line.endswith("lip sync -3 ms")
    assert "lip sync" not in live._stats_line(Stats())
