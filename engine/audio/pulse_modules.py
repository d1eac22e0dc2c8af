"""Modules loaded into a PulseAudio or PipeWire server, each marked with the process that owns it, so that none stays.

Removed by their owner; by a small watcher when the owner is killed; and by the next owner where even that one died.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import subprocess
from pathlib import Path

from engine.errors import VoiceOutError

logger = logging.getLogger(__name__)

_TIMEOUT_S = 3.0
_OWNER = re.compile(r"standin\.owner=([0-9a-z]+)-([0-9]+)-([0-9]+)-([0-9]+)")

_WATCHER = """
trap '' INT TERM HUP
cat >/dev/null
pactl list short modules | sort -rn | while read -r index name arguments; do
  case "$arguments" in *"standin.owner=$1 "*) pactl unload-module "$index" ;; esac
done
"""
"""Its standard input ends with the owner, however that ended. No Python: it sleeps as long as a call lasts."""


class ServerModules:
    """What this process has loaded. Raises `VoiceOutError` where there is no server or no `pactl`."""

    def __init__(self) -> None:
        self.owner = _owner_of(os.getpid())
        self._loaded: list[int] = []
        self._watcher: subprocess.Popen[bytes] | None = None

    def load(self, module: str, *arguments: str) -> bool:
        """Load one; false if the server refuses (a name that is taken)."""
        self._watch()
        done = _pactl("load-module", module, *arguments)
        index = done.stdout.strip()
        if done.returncode != 0 or not index.isdigit():
            logger.warning("the sound server did not load %s: %s", module, done.stderr.strip())
            return False
        self._loaded.append(int(index))
        return True

    def are_loaded(self) -> bool:
        """Whether the server still has all of them (it forgets them when it is started again)."""
        mine = {index for index, arguments in _listed() if f"standin.owner={self.owner} " in arguments}
        return bool(self._loaded) and mine.issuperset(self._loaded)

    def has_name(self, name: str) -> bool:
        """Whether a sink or source is called that."""
        for kind in ("sinks", "sources"):
            lines = _asked("list", "short", kind).splitlines()
            if any(name in line.split("\t")[1:2] for line in lines):
                return True
        return False

    def remove(self) -> None:
        """Unload all of them, the last one first; what a restarted server has under their numbers is left alone."""
        still = {index for index, arguments in _listed() if f"standin.owner={self.owner} " in arguments}
        for index in reversed(self._loaded):
            if index in still:
                _pactl("unload-module", str(index))
        self._loaded.clear()

    def remove_stale(self) -> None:
        """Unload what processes that are gone have left."""
        for index, arguments in sorted(_listed(), reverse=True):
            found = _OWNER.search(arguments)
            if found is not None and _is_gone(found.group(0).partition("=")[2]):
                logger.info("removing module %d of an engine that is gone", index)
                _pactl("unload-module", str(index))

    def close(self) -> None:
        """`remove` without an error, and no watcher any more; safe to call twice."""
        with contextlib.suppress(VoiceOutError):
            self.remove()
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.kill()
            watcher.wait()
            assert watcher.stdin is not None
            watcher.stdin.close()

    def _watch(self) -> None:
        if self._watcher is None or self._watcher.poll() is not None:
            # A session of its own: what is sent to the engine's terminal or group must not end it first.
            self._watcher = subprocess.Popen(
                ["/bin/sh", "-c", _WATCHER, "standin-watch", self.owner],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )


def check_server() -> None:
    """Raises `VoiceOutError` where no server answers, or there is no `pactl` to ask with."""
    _asked("info")


def _listed() -> list[tuple[int, str]]:
    """(index, arguments) of every module of the server."""
    rows = [line.split("\t") for line in _asked("list", "short", "modules").splitlines()]
    return [(int(row[0]), row[2]) for row in rows if len(row) > 2 and row[0].isdigit()]


def _asked(*arguments: str) -> str:
    done = _pactl(*arguments)
    if done.returncode != 0:
        raise _no_server(done.stderr.strip())
    return done.stdout


def _pactl(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["pactl", *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            env=os.environ | {"LC_ALL": "C"},
            check=False,
        )
    except FileNotFoundError as error:
        raise VoiceOutError(
            "The virtual microphone needs the program pactl, which is not installed.",
            code="voice_out.no_pactl",
            hint="Install it: sudo apt install pulseaudio-utils (Fedora: pulseaudio-utils, Arch: libpulse).",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise _no_server(f"no answer within {_TIMEOUT_S:g} s") from error


def _no_server(detail: str) -> VoiceOutError:
    return VoiceOutError(
        "There is no sound server that could hold the virtual microphone.",
        code="voice_out.no_server",
        hint="Start PipeWire (systemctl --user start pipewire-pulse) or PulseAudio (pulseaudio --start).",
        detail=detail,
    )


def _owner_of(pid: int) -> str:
    """Boot, pid namespace, pid and start time: the same number is another process in another sandbox, or later."""
    boot = _text("/proc/sys/kernel/random/boot_id")[:8]
    return f"{boot or 0}-{_namespace()}-{pid}-{_started(pid)}"


def _is_gone(owner: str) -> bool:
    boot, namespace, pid, started = owner.split("-")
    mine = _owner_of(os.getpid()).split("-")
    if [boot, namespace] != mine[:2]:
        return False  # of another machine or sandbox: nobody here can tell
    return str(_started(int(pid))) != started


def _namespace() -> str:
    try:
        return re.sub(r"\D", "", os.readlink("/proc/self/ns/pid")) or "0"
    except OSError:
        return "0"


def _started(pid: int) -> int:
    """Start time of a process in clock ticks since the machine's; 0 if there is no such process."""
    # The second field is the program's name in brackets and may hold anything.
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 and fields[0] not in "ZX" else 0


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
