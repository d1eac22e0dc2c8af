"""A real sound server without hardware, the user's folders, and the engine as a real process."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engine import cli
from engine.protocol.codec import decode_event, encode
from engine.protocol.messages import Reply

_SESSION = """load-module module-native-protocol-unix auth-anonymous=1 socket={run}/native
load-module module-null-sink sink_name=mic_feed rate=48000 channels=1
load-module module-remap-source master=mic_feed.monitor source_name=fakemic
load-module module-null-sink sink_name=fakeout rate=48000 channels=2
set-default-sink fakeout
set-default-source fakemic
"""

_ALSA = """</usr/share/alsa/alsa.conf>
pcm.!default { type pulse }
ctl.!default { type pulse }
pcm.fakemic { type pulse device fakemic hint { show on description "FakeMic" } }
pcm.fakeout { type pulse device fakeout hint { show on description "FakeOut" } }
"""


class SoundServer:
    """PulseAudio with a microphone "fakemic" (fed through the sink mic_feed) and an output "fakeout"."""

    def __init__(self, folder: Path) -> None:
        run = folder / "run"
        run.mkdir(mode=0o700)
        folder.chmod(0o700)
        (folder / "session.pa").write_text(_SESSION.format(run=run))
        (folder / "asound.conf").write_text(_ALSA)
        self.environment = {
            "PULSE_RUNTIME_PATH": str(run),
            "PULSE_STATE_PATH": str(folder / "state"),
            "PULSE_SERVER": f"unix:{run}/native",
            "ALSA_CONFIG_PATH": str(folder / "asound.conf"),
        }
        self._children: list[subprocess.Popen] = []
        self._folder = folder
        try:
            self.begin()
            self._keep_awake()
        except BaseException:
            self.stop()  # no fixture would
            raise

    def begin(self) -> None:
        """Start the server, also after it has ended, and wait until it answers: its socket is there a little before."""
        self._start(
            "pulseaudio", "-n", "-F", str(self._folder / "session.pa"), "--daemonize=no", "--exit-idle-time=-1",
            "--use-pid-file=no", "--disable-shm=yes",
        )  # fmt: skip
        self._wait(lambda: self._told("info"), "the sound server did not start")

    def _keep_awake(self) -> None:
        """Null sinks that nobody listens to sleep, and lose the first second and a half of what comes next."""
        for source in ("fakemic", "fakeout.monitor"):
            self._start("parec", "--raw", "--latency-msec=10", "-d", source, stdout=subprocess.DEVNULL)
        listening = ("list", "short", "source-outputs")
        self._wait(lambda: self._told(*listening).count("protocol-native") == 2, "nobody listens to the null sinks")
        time.sleep(0.5)

    def _told(self, *words: str) -> str:
        """What `pactl` says, nothing where the server does not answer."""
        environment = os.environ | self.environment
        try:
            done = subprocess.run(["pactl", *words], env=environment, capture_output=True, text=True, timeout=10)
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout if done.returncode == 0 else ""

    @staticmethod
    def _wait(condition, trouble: str) -> None:
        deadline_s = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline_s, trouble
            time.sleep(0.05)

    def _start(self, *command: str, **options) -> subprocess.Popen:
        child = subprocess.Popen(command, env=os.environ | self.environment, stderr=subprocess.DEVNULL, **options)
        self._children.append(child)
        return child

    def speak(self, path: Path) -> subprocess.Popen:
        """Play a sound file into the microphone."""
        return self._start("paplay", "-d", "mic_feed", "--latency-msec=20", str(path))

    def record(self, path: Path) -> subprocess.Popen:
        """Record what the output plays, mono 48 kHz WAV, until terminated."""
        return self._start(
            "parec", "-d", "fakeout.monitor", "--rate=48000", "--channels=1", "--latency-msec=10",
            "--file-format=wav", str(path),
        )  # fmt: skip

    def stop(self) -> None:
        for child in reversed(self._children):
            child.terminate()
        for child in self._children:
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@pytest.fixture
def sound_server(tmp_path, monkeypatch):
    """Started for one test; its environment is set for the test's own process and children."""
    missing = [tool for tool in ("pulseaudio", "parec", "paplay", "pactl") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")
    folder = tmp_path / "sound"
    folder.mkdir()
    server = SoundServer(folder)
    for key, value in server.environment.items():
        monkeypatch.setenv(key, value)
    yield server
    server.stop()


@pytest.fixture
def hum(tmp_path) -> Path:
    """A sound file: a vowel for a minute."""
    import numpy as np
    import soundfile

    rate_hz = 48_000
    t = np.arange(60 * rate_hz) / rate_hz
    path = tmp_path / "hum.wav"
    soundfile.write(path, (0.2 * np.sin(2 * np.pi * 140 * t) * (1 + 0.5 * np.sin(6 * t))).astype(np.float32), rate_hz)
    return path


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """The user's folders, empty, for commands in this process and for those that it starts."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setattr(cli, "set_up_logging", lambda **_options: None)
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(folder))
    return folder


class EngineProcess:
    """`python -m engine serve` with its events in a list."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "engine", "serve"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | environment,
        )  # fmt: skip
        self.events: list = []
        self._queue: queue.Queue = queue.Queue()
        self._next_id = 1
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.errors = b""
        self._error_reader = threading.Thread(target=self._read_errors, daemon=True)
        self._error_reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            event = decode_event(line)
            self.events.append(event)
            self._queue.put(event)

    def _read_errors(self) -> None:
        self.errors = self.process.stderr.read()

    def send(self, make, **fields) -> int:
        number, self._next_id = self._next_id, self._next_id + 1
        self.write(encode(make(id=number, **fields)))
        return number

    def write(self, data: bytes) -> None:
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def ask(self, make, timeout_s: float = 20.0, **fields) -> Reply:
        """Send a command and wait for its reply."""
        number = self.send(make, **fields)
        return self.wait(lambda e: isinstance(e, Reply) and e.id == number, timeout_s)

    def wait(self, condition, timeout_s: float = 20.0):
        """The first event, past or coming, that `condition` accepts."""
        deadline = time.monotonic() + timeout_s
        seen = 0
        while True:
            while seen < len(self.events):
                if condition(self.events[seen]):
                    return self.events[seen]
                seen += 1
            assert time.monotonic() < deadline, f"no such event; the last ones: {self.events[-3:]}"
            time.sleep(0.01)

    def close(self) -> int:
        """End of input; the exit status."""
        self.process.stdin.close()
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self._reader.join(30)
            self._error_reader.join(30)
            self.process.stdout.close()
            self.process.stderr.close()


@pytest.fixture
def engine():
    """Engines started by calling it; all ended afterwards."""
    started = []

    def start(**environment: str) -> EngineProcess:
        started.append(EngineProcess(environment))
        return started[-1]

    yield start
    for process in started:
        if not process.process.stdin.closed:
            process.close()
