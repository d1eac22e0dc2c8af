"""The virtual microphone in a real sound server: there while it is used, gone however its engine ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from engine.audio.pulse_modules import ServerModules
from engine.audio.pulse_stream import PulseError, PulseRecording
from engine.audio.virtual_microphone import ServerMicrophone
from engine.audio.virtual_voice_out import VirtualVoiceOut
from engine.errors import VoiceOutError

RATE_HZ = 48_000
DELAY_S = 0.150

HOLD = """
import sys, time
from engine.audio.virtual_microphone import ServerMicrophone
microphone = ServerMicrophone()
microphone.open()
print(microphone.source, flush=True)
time.sleep(60)
"""


def sources() -> dict[str, str]:
    """Name -> description of each source of the server."""
    done = subprocess.run(["pactl", "--format=json", "list", "sources"], capture_output=True, check=True, timeout=10)
    return {source["name"]: source["description"] for source in json.loads(done.stdout)}


def modules() -> str:
    """What the server has loaded."""
    return subprocess.run(["pactl", "list", "short", "modules"], capture_output=True, text=True, timeout=10).stdout


def until(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


@pytest.fixture
def holder(sound_server):
    """Processes that hold a virtual microphone, until they are killed."""
    children = []

    def start():
        child = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
        children.append(child)
        return child, child.stdout.readline().strip()

    yield start
    for child in children:
        child.kill()
        child.wait()
        child.stdout.close()


def _watchers_of(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"standin-watch" in words and f"-{pid}-".encode() in words[words.index(b"standin-watch") + 1]:
            found.append(int(folder.name))
    return found


def test_it_is_a_microphone_and_no_monitor_and_is_gone_when_closed(sound_server):
    before = sources()
    microphone = ServerMicrophone()
    microphone.open()
    try:
        assert sources()[microphone.source] == "Standin Microphone" == microphone.label
        done = subprocess.run(["pactl", "list", "sources"], capture_output=True, text=True, check=True, timeout=10)
        entry = next(part for part in done.stdout.split("\n\n") if f"Name: {microphone.source}\n" in part)
        assert 'device.class = "monitor"' not in entry, "browsers leave monitors out"
        assert "Monitor of Sink: n/a" in entry
        loaded = subprocess.run(
            ["pactl", "list", "short", "modules"], capture_output=True, text=True, timeout=10
        ).stdout
        microphone.open()
        again = modules()
        assert loaded == again, "opening what is open changes nothing"
    finally:
        microphone.close()
        microphone.close()
    assert sources() == before
    assert _watchers_of(os.getpid()) == []


def test_two_engines_do_not_clash_and_neither_removes_the_others(holder):
    (first, name), (second, other) = holder(), holder()
    assert (name, other) == ("standin_microphone", "standin_microphone_2")
    assert sources()[other] == "Standin Microphone 2"
    second.kill()
    until(lambda: other not in sources())
    assert name in sources() and first.poll() is None
    third, again = holder()
    assert again == other
    first.kill()
    until(lambda: name not in sources())
    assert third.poll() is None and other in sources()


def test_killed_engine_leaves_nothing(holder):
    child, name = holder()
    assert name in sources()
    until(lambda: len(_watchers_of(child.pid)) == 1)
    child.kill()
    until(lambda: not any("standin" in source for source in sources()))
    until(lambda: _watchers_of(child.pid) == [])


def test_left_over_without_a_watcher_is_removed_by_the_next(holder):
    child, name = holder()
    until(lambda: _watchers_of(child.pid))  # a process that has just been started may not be called that yet
    for watcher in _watchers_of(child.pid):
        os.kill(watcher, signal.SIGKILL)
    child.kill()
    child.wait()
    time.sleep(0.3)
    assert name in sources(), "nobody was there to remove it"
    microphone = ServerMicrophone()
    microphone.open()
    assert microphone.source == name and list(sources()).count(name) == 1
    microphone.close()
    assert not any("standin" in source for source in sources())


def test_what_another_sandbox_owns_is_left_alone(sound_server):
    """Its process numbers mean nothing here."""
    foreign = ServerModules()
    boot, _, _, _ = foreign.owner.split("-")
    for owner in (f"{boot}-1-999999-1", "0badc0de-4026531836-999999-1"):
        foreign.owner = owner
        assert foreign.load("module-null-sink", "sink_name=theirs", f'sink_properties="standin.owner={owner} a=b"')
        ServerModules().remove_stale()
        assert "theirs.monitor" in sources()
        foreign.remove()
        assert "theirs.monitor" not in sources()
    foreign.close()


@pytest.mark.skipif(shutil.which("pactl") is None, reason="pactl is not installed")
def test_without_a_server_it_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("PULSE_SERVER", f"unix:{tmp_path}/nobody")
    monkeypatch.setenv("PULSE_RUNTIME_PATH", str(tmp_path))
    with pytest.raises(VoiceOutError) as caught:
        VirtualVoiceOut().start()
    assert caught.value.code == "voice_out.no_server"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VoiceOutError) as caught:
        ServerMicrophone().open()
    assert caught.value.code == "voice_out.no_pactl" and "pactl" in caught.value.message


class Speaker:
    """Clicks, one every 250 ms, written to a voice out as the audio thread does; session time 0 is `origin_s`."""

    def __init__(self, voice):
        self._voice, self.origin_s, self._stopping = voice, time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        written, line = 0, self._voice.line
        while not self._stopping.wait(0.01):
            count = int((time.monotonic() - self.origin_s) * RATE_HZ) - written
            position = written + np.arange(count)
            click = 0.8 * (position % 12_000 < 48)
            line.write(click[:, None].astype(np.float32), RATE_HZ, written / RATE_HZ)
            written += count
            line.steer(DELAY_S, self.origin_s)

    def stop(self):
        self._stopping.set()
        self._thread.join()


def _lateness_s(origin_s: float, source: str, seconds: float) -> list[float]:
    """How much later than it was said each click is heard at `source`."""
    heard = PulseRecording(source, RATE_HZ)
    late, deadline, quiet = [], time.monotonic() + seconds, 0
    try:
        while time.monotonic() < deadline:
            samples, at_s = heard.read()
            loud = np.flatnonzero(np.abs(samples[:, 0]) > 0.3)
            if len(loud) and quiet >= 3:
                late.append((at_s + loud[0] / RATE_HZ - origin_s) % 0.25)
            quiet = 0 if len(loud) else quiet + 1
    finally:
        heard.close()
    return late


def _restart(sound_server) -> None:
    """The sound server ends and comes again, as after an update or a crash."""
    old = sound_server._children[0]
    old.kill()
    old.wait()
    run = Path(sound_server.environment["PULSE_RUNTIME_PATH"])
    (run / "native").unlink(missing_ok=True)
    time.sleep(1.0)
    sound_server.begin()


def test_voice_is_heard_in_time_and_again_after_the_server_was_restarted(sound_server):
    voice = VirtualVoiceOut()
    voice.start()
    speaker = Speaker(voice)
    try:
        assert voice.microphone == "Standin Microphone"
        late = _lateness_s(speaker.origin_s, "standin_microphone", 3.0)[2:]
        assert len(late) >= 6 and np.median(late) == pytest.approx(DELAY_S, abs=0.020)
        _restart(sound_server)
        until(lambda: "standin_microphone" in sources())
        time.sleep(1.0)
        late = _lateness_s(speaker.origin_s, "standin_microphone", 3.0)[2:]
        assert len(late) >= 6 and np.median(late) == pytest.approx(DELAY_S, abs=0.020)
        assert not voice.has_failed
    finally:
        speaker.stop()
        voice.stop()
    assert not any("standin" in source for source in sources())
    with pytest.raises(PulseError):
        PulseRecording("standin_microphone", RATE_HZ)


def test_one_takes_over_from_another_without_the_microphone_going_away(sound_server):
    first, second = VirtualVoiceOut(), VirtualVoiceOut()
    first.start()
    loaded = modules()
    second.start()
    first.stop()
    after = modules()
    assert loaded == after and second.label == "Standin Microphone"
    second.stop()
    second.stop()
    assert not any("standin" in source for source in sources())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_live_command_takes_its_microphone_with_it(sound_server, number):
    command = [sys.executable, "-m", "engine", "live", "--portrait", "sample:", "--mic", "none", "--no-camera"]
    command += ["--voice-out", "virtual", "--canvas", "640x360"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert "Standin Microphone" in child.stdout.readline()
        until(lambda: "standin_microphone" in sources())
        child.send_signal(number)
        child.communicate(timeout=20)
    finally:
        child.kill()
        child.wait()
    until(lambda: not any("standin" in source for source in sources()))
