"""Sound and camera servers of the run's own, in folders of their own, and the processes that run in them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TOOLS = {
    "pulseaudio": "pulseaudio",
    "pacat": "pulseaudio-utils",
    "parec": "pulseaudio-utils",
    "pactl": "pulseaudio-utils",
    "pipewire": "pipewire",
    "wireplumber": "wireplumber",
    "pw-dump": "pipewire-bin",
    "gst-launch-1.0": "gstreamer1.0-tools",
    "dbus-run-session": "dbus",
    "ffprobe": "ffmpeg",
}
"""What is needed, and Debian's package with it."""

_SESSION = """load-module module-native-protocol-unix auth-anonymous=1 socket={run}/native
load-module module-null-sink sink_name=mic_feed rate=48000 channels=1
load-module module-remap-source master=mic_feed.monitor source_name=fakemic
load-module module-null-sink sink_name=fakeout rate=48000 channels=2
set-default-sink fakeout
set-default-source fakeout.monitor
"""
"""The server moves who listens to a source that goes away to the default one, which is silent here."""

_ALSA = """</usr/share/alsa/alsa.conf>
pcm.!default { type pulse }
ctl.!default { type pulse }
pcm.fakemic { type pulse device fakemic hint { show on description "FakeMic" } }
"""
_START_S = 15.0


class CannotRun(Exception):
    """Why there can be no soak on this computer."""


def check_computer() -> None:
    """Raise `CannotRun` where something is missing."""
    if sys.platform != "linux":
        raise CannotRun("it needs Linux's sound and camera servers")
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if missing:
        raise CannotRun(f"not installed: {' '.join(missing)}")
    if subprocess.run(["gst-inspect-1.0", "pipewiresrc"], capture_output=True).returncode:
        raise CannotRun("not installed: gstreamer1.0-pipewire")


class Stage:
    """One run's folder, environment and children; `close` ends every one of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o700)
        run = folder / "pulse"
        run.mkdir(mode=0o700)
        self._pulse_socket = run / "native"
        (folder / "session.pa").write_text(_SESSION.format(run=run))
        (folder / "asound.conf").write_text(_ALSA)
        self.slow_file, self._clock_file = folder / "slow", folder / "clock"
        self._clock_file.write_bytes(struct.pack("q", 0))
        self.environment = self._environment(run)
        self.has_clock = self._make_clock()
        self.children: list[subprocess.Popen] = []
        with contextlib.suppress(OSError):
            os.setsid()
        favour(os.getpid())
        self._log = (folder / "servers.log").open("ab")
        self._pulse: list[subprocess.Popen] = []

    def _environment(self, run: Path) -> dict[str, str]:
        made = {
            **os.environ,
            "PULSE_RUNTIME_PATH": str(run), "PULSE_STATE_PATH": str(self.folder / "state"),
            "PULSE_SERVER": f"unix:{run}/native", "ALSA_CONFIG_PATH": str(self.folder / "asound.conf"),
            "XDG_RUNTIME_DIR": str(self.folder), "HOME": str(self.folder), "STANDIN_SOAK_SLOW": str(self.slow_file),
            "QT_QPA_PLATFORM": "offscreen", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
        }  # fmt: skip
        made |= {f"XDG_{kind}_HOME": str(self.folder / kind.lower()) for kind in ("STATE", "CONFIG", "CACHE", "DATA")}
        for name in ("PIPEWIRE_REMOTE", "PIPEWIRE_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"):
            made.pop(name, None)
        return made

    def _make_clock(self) -> bool:
        """The library that moves the wall clock; false without a C compiler."""
        library = self.folder / "clock_step.so"
        try:
            subprocess.run(
                ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "clock_step.c"), "-ldl"],
                check=True, capture_output=True,
            )  # fmt: skip
        except (OSError, subprocess.CalledProcessError):
            return False
        self.environment |= {"STANDIN_SOAK_CLOCK": str(self._clock_file), "LD_PRELOAD": str(library)}
        return True

    def step_clock(self, offset_s: int) -> None:
        """Move the wall clock of everything that runs here to `offset_s` after the real one."""
        with self._clock_file.open("r+b") as file:
            file.write(struct.pack("q", offset_s))

    # ------------------------------------------------------------------------------------------------ processes

    def start(self, *command: str, **options) -> subprocess.Popen:
        """A child that is ended with the stage."""
        child = subprocess.Popen(command, env=self.environment, **options)
        self.children.append(child)
        return child

    def start_python(self, script: str, *arguments: str, **options) -> subprocess.Popen:
        """One of this folder's programs, in a process group of its own."""
        command = (sys.executable, str(HERE / script), *arguments)
        child = self.start(*command, cwd=ROOT, start_new_session=True, **options)
        favour(child.pid)
        return child

    def start_sound(self) -> None:
        """The sound server, and what keeps its null sinks awake: sleeping ones lose what they are given first."""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": self._log}
        pulse = self.start(
            "pulseaudio", "-n", "-F", str(self.folder / "session.pa"), "--daemonize=no", "--exit-idle-time=-1",
            "--use-pid-file=no", "--disable-shm=yes", **quiet,
        )  # fmt: skip
        self._wait(self._pulse_socket.exists, "sound server")
        listeners = [
            self.start("parec", "--raw", "--latency-msec=10", "-d", source, **quiet)
            for source in ("fakemic", "fakeout.monitor")
        ]
        self._pulse = [pulse, *listeners]

    def stop_sound(self) -> None:
        """As `systemctl stop` would."""
        for child in self._pulse:
            child.terminate()
        for child in self._pulse:
            _end(child)
        self._pulse_socket.unlink(missing_ok=True)

    def start_cameras(self) -> None:
        """PipeWire and its session manager."""
        script = "pipewire & for i in $(seq 100); do test -e $XDG_RUNTIME_DIR/pipewire-0 && break; sleep 0.05; done; "
        self.start(
            "dbus-run-session", "--", "sh", "-c", script + "exec wireplumber", stdout=self._log, stderr=self._log
        )
        self._wait(self._has_manager, "camera server")

    def _has_manager(self) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(["pw-dump"], env=self.environment, capture_output=True, text=True, timeout=5)
            return "WirePlumber" in done.stdout
        return False

    def _wait(self, condition, what: str) -> None:
        end_s = time.monotonic() + _START_S
        while not condition():
            if time.monotonic() > end_s:
                raise CannotRun(f"the {what} did not start; see {self.folder}/servers.log")
            time.sleep(0.05)

    def close(self) -> None:
        """End every child and their children."""
        for child in reversed(self.children):
            family = [child]
            with contextlib.suppress(psutil.NoSuchProcess):
                family += psutil.Process(child.pid).children(recursive=True)
            for member in family:
                with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                    member.send_signal(signal.SIGCONT)
                    member.kill()
            child.wait()
        self._log.close()


def favour(pid: int) -> None:
    """Let a session of `pid` have what this program has been given with `nice`: Linux shares the processors out among
    sessions first, and `nice` counts only inside of one."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(os.nice(0)))


def _end(child: subprocess.Popen) -> None:
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


_OWN_COMMAND_S = 1.0
"""A process that has only been forked shows its parent's command line until it begins its own program."""

_roles: dict[int, str] = {}


def family_of(pid: int) -> dict[str, int]:
    """The product's processes below `pid` by what they are: {"engine": pid, "camera": pid, ...}."""
    found: dict[str, int] = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                # Asked for once: reading it makes the process wait for whoever reads, who may be kept waiting himself.
                role = _roles[process.pid] if process.pid in _roles else _role_of(process.cmdline())
                if time.time() - process.create_time() > _OWN_COMMAND_S:
                    _roles[process.pid] = role
                if role and process.status() != psutil.STATUS_ZOMBIE:
                    found[role] = process.pid
    return found


def _role_of(command: list[str]) -> str:
    text = " ".join(command[:4])
    if "engine.camera.process" in text:
        return "camera"
    if "product.py" in text:
        return "engine"
    if "window.py" in text:
        return "window"
    return "microphone watch" if "standin" in text.lower() and "pactl" in " ".join(command) else ""
