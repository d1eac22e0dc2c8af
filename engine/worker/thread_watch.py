"""Whether a thread gets on, seen from another one: a rank that computes, loads or compiles does, one that hangs does
not."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import FrameType

_COMPILING = (
    "subprocess.py",
    "torch/_dynamo/convert_frame.py",
    "torch/_inductor/async_compile.py",
    "torch/_inductor/compile_fx.py",
    "torch/utils/cpp_extension.py",
    "triton/compiler/compiler.py",
    "triton/runtime/autotuner.py",
    "triton/runtime/build.py",
)
"""Ends of source files. What is below them may take minutes in other processes and threads, of which nothing is seen
here; none of it waits for other ranks."""
_OUTERMOST = 200


class ThreadWatch:
    """Looks at the thread `ident` (of `threading.get_ident`), which must be alive now. It has got on since the last
    look if it is elsewhere in the program, has used the processor, or if the process has read from disk; while it
    compiles it always has. One thread looks."""

    def __init__(self, ident: int) -> None:
        self._ident = ident
        self._clock = time.pthread_getcpuclockid(ident) if hasattr(time, "pthread_getcpuclockid") else None
        self._before: tuple[object, ...] = ()
        self.where = ""
        """The innermost place in the program, for a log."""

    def look(self) -> bool:
        """Whether it has got on since the last look; true the first time."""
        frame = sys._current_frames().get(self._ident)
        before, self._before = self._before, (*_places(frame), self._used_s(), _read_from_disk())
        self.where = _name_of(frame)
        return self._before != before or _is_compiling(frame)

    def _used_s(self) -> float:
        """Of the processor. Not where there is a GPU: who waits for that uses the processor, too, in turning round."""
        torch = sys.modules.get("torch")
        if self._clock is None or (torch is not None and torch.cuda.is_initialized()):
            return 0.0
        try:
            return time.clock_gettime(self._clock)
        except OSError:  # it has ended
            return 0.0


def _places(frame: FrameType | None) -> list[tuple[int, int]]:
    """Which call stands where. A call is told from the one before it by its identity; nothing of it is kept."""
    places = []
    while frame is not None and len(places) < _OUTERMOST:
        places.append((id(frame), frame.f_lasti))
        frame = frame.f_back
    return places


def _is_compiling(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.replace("\\", "/").endswith(_COMPILING):
            return True
        frame = frame.f_back
    return False


def _name_of(frame: FrameType | None) -> str:
    if frame is None:
        return ""
    return f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno} {frame.f_code.co_name}"


def _read_from_disk() -> str:
    """What this process has read, in whatever measure the system has: a large file that is mapped, or read at once, is
    read without the program moving."""
    if sys.platform == "win32":
        return ""
    import resource

    pages = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return str(pages)
    return f"{pages} {[line for line in lines if line.startswith('read_bytes')]}"
