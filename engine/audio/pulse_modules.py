"""Modules loaded into a PulseAudio or PipeWire server, each marked with the process that owns it, so that none stays.

Removed by their owner; by a small watcher when the owner is killed; and by the next owner where even that one died.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.errors import VoiceOutError

logger = logging.getLogger(__name__)

_TIMEOUT_S = 3.0
SYNC_TEST = "Sync test"
"""Name of the stream of `PulseRecording`: it hears our own microphone on purpose."""

_OWNER = re.compile(r"standin\.owner=([0-9a-z]+)-([0-9]+)-([0-9]+)-([0-9]+)")

_WATCHER = """
trap '' INT TERM HUP
cat >/dev/null
pactl list short modules | sort -rn | while read -r index name arguments; do
  case "$arguments" in *"standin.owner=$1 "*) pactl unload-module "$index" ;; esac
done
"""
"""Its standard input ends with the owner, however that ended. No Python: it sleeps as long as a call lasts."""

_FOLLOWER = """
pactl subscribe &
exec >/dev/null
cat
kill $!
"""
"""As `_WATCHER`: `pactl` would go on when nobody reads what it says. Its output ends with it, not with the shell's."""


class ServerModules:
    """What this process has loaded. Raises `VoiceOutError` where there is no server or no `pactl`."""

    def __init__(self) -> None:
        self.owner = owner_of(os.getpid())
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
            if any(is_gone(owner) for owner in owners_in(arguments)):
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


@dataclass(frozen=True, kw_only=True)
class OwnStreams:
    """Where the server has the streams of one process. All are names of sources, or of sinks in `played`."""

    recorded: frozenset[str] = frozenset()
    played: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()


def own_streams(pid: int | None = None) -> OwnStreams:
    """Those of this process, as they are now. Raises `VoiceOutError` where no server answers."""
    pid = os.getpid() if pid is None else pid
    # Streams first: between two questions a source may vanish, and its stream would seem to have been moved from one
    # that is still there, as if somebody had chosen that.
    recorded = _streams_of(pid, _asked("list", "source-outputs"), "Source")
    played = _streams_of(pid, _asked("list", "sink-inputs"), "Sink")
    sources, sinks = (_names(_asked("list", "short", kind)) for kind in ("sources", "sinks"))
    return OwnStreams(
        recorded=frozenset(sources[index] for index in recorded if index in sources),
        played=frozenset(sinks[index] for index in played if index in sinks),
        sources=frozenset(sources.values()),
    )


def _names(listed: str) -> dict[str, str]:
    """Index -> name of a short list."""
    rows = [line.split("\t") for line in listed.splitlines()]
    return {row[0]: row[1] for row in rows if len(row) > 1}


def _streams_of(pid: int, listed: str, kind: str) -> list[str]:
    """Indices of the sources or sinks of a process' streams. Older pactl knows no JSON."""
    found = []
    for block in listed.split("\n\n"):
        device = re.search(rf"^\t{kind}: (\d+)$", block, re.MULTILINE)
        if device and f'application.process.id = "{pid}"' in block and f'media.name = "{SYNC_TEST}"' not in block:
            found.append(device.group(1))
    return found


def subscribe() -> subprocess.Popen[bytes]:
    """A process that writes a line for each thing that happens in the server, until its standard input is closed.
    Raises `OSError`."""
    return subprocess.Popen(
        ["/bin/sh", "-c", _FOLLOWER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"LC_ALL": "C"},
        start_new_session=True,
    )


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


def owners_in(text: str) -> list[str]:
    """The owners that a list of modules names, one for each module that has one."""
    return [found.group(0).partition("=")[2] for found in _OWNER.finditer(text)]


def owner_of(pid: int, read: Callable[[str], str | None] | None = None) -> str:
    """Boot, pid namespace, pid and start time: the same number is another process in another sandbox, or later.

    `read` gives a file's text, or None.
    """
    read = read or _text
    boot = (read("/proc/sys/kernel/random/boot_id") or "")[:8]
    return f"{boot or 0}-{_namespace()}-{pid}-{_started(pid, read)}"


def is_gone(owner: str, read: Callable[[str], str | None] | None = None) -> bool:
    """Whether its process has ended; false for one of another machine or sandbox, of which nobody here can tell."""
    read = read or _text
    boot, namespace, pid, started = owner.split("-")
    mine = owner_of(os.getpid(), read).split("-")
    if [boot, namespace] != mine[:2]:
        return False
    return str(_started(int(pid), read)) != started


def _namespace() -> str:
    try:
        return re.sub(r"\D", "", os.readlink("/proc/self/ns/pid")) or "0"
    except OSError:
        return "0"


def _started(pid: int, read: Callable[[str], str | None]) -> int:
    """Start time of a process in clock ticks since the machine's; 0 if there is no such process."""
    # The second field is the program's name in brackets and may hold anything.
    fields = (read(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 and fields[0] not in "ZX" else 0


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
