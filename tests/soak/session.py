"""The run itself: servers, watchers, the two sessions, and what happens to them."""

from __future__ import annotations

import json
import pickle
import shutil
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
from faults import Fault, Faults
from measure import Meter, Sample
from stage import Stage, family_of

WIDTH, HEIGHT, FPS = 640, 360, 25
_OVERHEAD_S = 30.0
_WINDOW_SHARE, _LEAST_WINDOW_S = 0.15, 55.0
_ROUND_S = 480.0
_SHORT_S = 400.0
_DISK_MB, _DISK_MB_A_MINUTE = 60, 20
_READY_S = 60.0
_SETTLE_S = 4.0
_END_S = 20.0
_KEPT = "run.pickle"


class ProductFailed(Exception):
    """Why the run could not go on to its end."""


@dataclass(frozen=True, kw_only=True)
class Happened:
    """A fault and when it was there, in monotonic seconds. `made_s` is when it had come about as a whole."""

    fault: Fault
    start_s: float
    end_s: float
    made_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A file, and when it was begun and ended (or broken off) by the machine's clock."""

    name: str
    path: Path
    start_s: float
    end_s: float
    is_cut: bool
    """Ended by a full disk or a killed engine: the last seconds may be missing."""


@dataclass(kw_only=True)
class Session:
    """What there is to judge about one of the two. `events` are (arrival, event) in the words of the protocol."""

    name: str
    start_s: float = 0.0
    end_s: float = 0.0
    status: int | None = None
    events: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    happened: list[Happened] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    recordings: list[Recording] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class KeptRun:
    """What is judged of a run."""

    sessions: list[Session]
    camera_log: Path
    sound_log: Path
    witness_log: Path
    notes: list[str]


def kept_run(folder: Path) -> KeptRun:
    """A run of which everything was kept in `folder`."""
    _minutes, sessions, notes = pickle.loads((folder / _KEPT).read_bytes())
    for session in sessions:
        session.recordings = [replace(one, path=next(folder.rglob(one.path.name))) for one in session.recordings]
    logs = {f"{name}_log": folder / f"{name}.log" for name in ("camera", "sound", "witness")}
    return KeptRun(sessions=sessions, **logs, notes=notes)


class Soak:
    """`run` is called once; afterwards the sessions and the watchers' logs are there to be judged."""

    def __init__(self, folder: Path, minutes: float) -> None:
        self.folder, self.minutes = folder, minutes
        self.sessions: list[Session] = []
        self.camera_log, self.sound_log = folder / "camera.log", folder / "sound.log"
        self.witness_log = folder / "witness.log"
        self.notes: list[str] = []
        self._stage = Stage(folder)
        self._sample_every_s = min(10.0, max(1.0, minutes / 6))
        self._window_s = max(_LEAST_WINDOW_S, _WINDOW_SHARE * 60 * minutes)
        self._live_s = 60 * minutes - _OVERHEAD_S - self._window_s
        self._disk = self._small_disk()

    def run(self) -> None:
        """All of it; raises `CannotRun` where the servers do not start."""
        try:
            self._stage.start_sound()
            self._stage.start_cameras()
            self._stage.start_python("witness.py", str(self.witness_log))
            self._stage.start_python("watch.py", "play", "mic_feed")
            self._stage.start_python("watch.py", "camera", str(self.camera_log), str(WIDTH), str(HEIGHT))
            self._stage.start_python("watch.py", "sound", str(self.sound_log), "standin_microphone")
            self._live()
            self._window()
        finally:
            self._stage.close()

    def keep(self, folder: Path) -> None:
        """Copy every log and recording there, for `kept_run`."""
        (self.folder / _KEPT).write_bytes(pickle.dumps((self.minutes, self.sessions, self.notes)))
        shutil.copytree(self.folder, folder, dirs_exist_ok=True, ignore=_no_files)

    def close(self) -> None:
        """Give the small disk back; recordings on it are gone then. Safe to call twice."""
        disk, self._disk = self._disk, None
        if disk is not None:
            subprocess.run(["umount", "-l", str(disk)], capture_output=True)

    def _small_disk(self) -> Path | None:
        """A file system of the run's own that may be filled up; root only."""
        disk = self.folder / "disk"
        disk.mkdir()
        size_mb = round(_DISK_MB + _DISK_MB_A_MINUTE * self.minutes)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "none", str(disk)]
        try:
            subprocess.run(mount, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            self.notes.append("no disk was filled: only root can make one of its own")
            return None
        return disk

    # ------------------------------------------------------------------------------------------ `standin live`

    def _live(self) -> None:
        session = Session(name="standin live")
        self.sessions.append(session)
        path = (self._disk or self.folder) / "live.mp4"
        with (self.folder / "live.err").open("wb") as errors:
            product = self._stage.start_python(
                "product.py", "live", "--portrait", "sample:", "--generator", "slow", "--mic", "fakemic",
                "--gate", "off", "--canvas", f"{WIDTH}x{HEIGHT}", "--fill", "crop",
                "--voice-out", "virtual", "--camera-backend", "pipewire",
                "--record", str(path), "--json", "--stats", str(self.folder / "live.json"),
                stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        reader = threading.Thread(target=self._read, args=(product.stdout, session), daemon=True)
        reader.start()
        self._wait_for_pictures(product, after_s=time.monotonic())
        meter = self._begin(session, product.pid)
        faults = Faults(self._stage, product.pid, self.camera_log.with_suffix(".pid"), self._disk)
        rounds = max(1, int(self._live_s / _ROUND_S))
        plan = [
            fault
            for number in range(1, rounds + 1)
            for fault in faults.of_live(is_short=self._live_s < _SHORT_S, is_last_round=number == rounds)
        ]
        self._put_to(session, product, plan, self._live_s)
        session.end_s = time.monotonic()
        meter.stop()
        session.samples = meter.samples
        asked_s = time.monotonic()
        _ask_to_end(product, lambda: product.send_signal(signal.SIGINT))
        session.status = product.returncode
        reader.join(5)
        full_s = [h.made_s for h in session.happened if h.fault.name == "disk full"]
        end_s = full_s[0] if full_s else asked_s
        first_s = next((at_s for at_s, event in session.events if event.get("type") == "recording_changed"), 0.0)
        session.recordings.append(
            Recording(name="until the disk was full" if full_s else "whole session", path=path, start_s=first_s,
                      end_s=end_s, is_cut=bool(full_s))
        )  # fmt: skip

    def _read(self, stream, session: Session) -> None:
        with (self.folder / "live.jsonl").open("w") as log:
            for line in stream:
                with suppress(ValueError):
                    session.events.append((time.monotonic(), json.loads(line)))
                    log.write(f"{session.events[-1][0]:.3f} {line.decode()}")

    # ---------------------------------------------------------------------------------------------- the window

    def _window(self) -> None:
        session = Session(name="window and engine")
        self.sessions.append(session)
        began_s = time.monotonic()
        with (self.folder / "window.err").open("wb") as errors:
            window = self._stage.start_python("window.py", str(self.folder), stdin=subprocess.PIPE, stderr=errors)
        self._wait_for_pictures(window, after_s=began_s)
        meter = self._begin(session, window.pid)
        rest_s = max(5.0, (self._window_s - 25) / 4)
        whole, broken = self.folder / "whole.mp4", self.folder / "broken.mp4"
        _say(window, f"record {whole}")
        whole_s = time.monotonic()
        time.sleep(rest_s)
        stuck = Fault(name="window stuck", seconds=min(40.0, rest_s + 3), act=lambda: _stop(window.pid))
        self._happen(session, stuck)
        time.sleep(rest_s)
        _say(window, "record")
        session.recordings.append(
            Recording(name="whole, window", path=whole, start_s=whole_s, end_s=time.monotonic(), is_cut=False)
        )
        time.sleep(1.0)
        _say(window, f"record {broken}")
        broken_s = time.monotonic()
        time.sleep(max(8.0, rest_s / 2))
        kill = Fault(name="engine killed", seconds=3.0, act=lambda: _kill(window.pid), is_gone=True, shifts_sound=True)
        killed = self._happen(session, kill)
        session.recordings.append(
            Recording(name="until kill -9", path=broken, start_s=broken_s, end_s=killed.start_s, is_cut=True)
        )
        self._wait_for_pictures(window, after_s=killed.start_s + 0.5)
        time.sleep(rest_s)
        session.end_s = time.monotonic()
        meter.stop()
        session.samples = meter.samples
        _ask_to_end(window, lambda: _say(window, "quit"))
        session.status = window.returncode
        session.events = _events_of(self.folder / "window.jsonl")

    # ------------------------------------------------------------------------------------------------ in common

    def _begin(self, session: Session, pid: int) -> Meter:
        time.sleep(_SETTLE_S)
        session.start_s = time.monotonic()
        meter = Meter(pid, self._sample_every_s)
        meter.start()
        return meter

    def _put_to(self, session: Session, product: subprocess.Popen, plan: list[Fault], seconds: float) -> None:
        """The faults, evenly spread over `seconds`."""
        rest_s = max(3.0, (seconds - sum(fault.seconds for fault in plan)) / (len(plan) + 1))
        for fault in plan:
            time.sleep(rest_s)
            if product.poll() is not None:
                raise ProductFailed(f"the product ended by itself with status {product.returncode}")
            self._happen(session, fault)
        time.sleep(rest_s)

    def _happen(self, session: Session, fault: Fault) -> Happened:
        start_s = time.monotonic()
        print(f"{start_s - self.sessions[0].start_s:7.1f} s  {fault.name}", flush=True)
        end = fault.act()
        made_s = time.monotonic()
        time.sleep(max(0.0, start_s + fault.seconds - time.monotonic()))
        end()
        done = Happened(fault=fault, start_s=start_s, end_s=time.monotonic(), made_s=made_s)
        session.happened.append(done)
        return done

    def _wait_for_pictures(self, product: subprocess.Popen, after_s: float) -> None:
        end_s = time.monotonic() + _READY_S
        while self._last_picture_s() < after_s:
            if time.monotonic() > end_s or product.poll() is not None:
                raise ProductFailed(f"no picture came from {product.args[1]} (its logs: --keep)")
            time.sleep(0.2)

    def _last_picture_s(self) -> float:
        with suppress(OSError, ValueError, IndexError), self.camera_log.open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - 200))
            return float(log.read().splitlines()[-2].split()[0])
        return 0.0


def _no_files(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not (Path(folder, name).is_file() or Path(folder, name).is_dir())]


def _events_of(path: Path) -> list[tuple[float, dict[str, Any]]]:
    """What the window noted; a last line that is cut off, where it had to be killed, costs that one only."""
    events = []
    for line in path.read_text().splitlines() if path.exists() else []:
        at_s, _, event = line.partition(" ")
        with suppress(ValueError):
            events.append((float(at_s), json.loads(event)))
    return events


def _say(window: subprocess.Popen, line: str) -> None:
    assert window.stdin is not None
    window.stdin.write(f"{line}\n".encode())
    window.stdin.flush()


def _stop(pid: int):
    process = psutil.Process(pid)
    process.suspend()
    return process.resume


def _kill(pid: int):
    psutil.Process(family_of(pid)["engine"]).kill()
    return lambda: None


def _ask_to_end(product: subprocess.Popen, ask) -> None:
    with suppress(OSError):
        ask()
    try:
        product.wait(_END_S)
    except subprocess.TimeoutExpired:
        product.kill()
        product.wait()
