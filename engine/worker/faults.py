"""What went wrong in a rank, in words that travel: to the engine, to torch's launcher, and to the other ranks."""

from __future__ import annotations

import json
import os
import re
import time
import traceback
from collections.abc import Iterable
from pathlib import Path

import msgspec

from engine.errors import GeneratorError, StandinError
from engine.worker.messages import Fault, fault_of

_LOST_PEER = ("gloo", "nccl", "Connection closed by peer", "Connection reset by peer", "Broken pipe")
_NCCL_CAUSE = re.compile("ncclSystemError|ncclUnhandledCudaError|ncclInvalidUsage|ncclInvalidArgument")
_NCCL_LOST_PEER = re.compile(
    "ncclRemoteError|was aborted|connection closed by|connection reset|connection refused|connection timed out"
    "|broken pipe|socket recv failed",
    re.IGNORECASE,
)
"""NCCL also calls it an error of the system that another rank has let go of a connection."""
_NCCL_REASONS = (re.compile(r"Last error:[ \t]*\n[ \t]*(\S.*)"), re.compile(r"(nccl\w+: \S.*)"), re.compile("(.*)"))
_NCCL_HINTS = {
    "/dev/shm": "NCCL needs room in /dev/shm. A container has 64 MB there unless it is started with more, "
    "as by: docker run --shm-size=1g",
    "Duplicate GPU": "Every rank needs a GPU of its own: start fewer ranks.",
}
_TIMED_OUT = ("Timed out", "timed out", "timeout", "Timeout")
_NO_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What torch says in a plain RuntimeError where an allocation failed outside of its own allocator for GPUs."""

_UNITS = ((3600.0, "hour"), (60.0, "minute"))
_DETAIL_CHARACTERS = 4000
_SENTENCE_CHARACTERS = 200


def fault_from(error: BaseException, rank: int, timeout_s: float) -> Fault:
    """What to say about an exception that ended rank `rank`."""
    detail = "".join(traceback.format_exception(error))[-_DETAIL_CHARACTERS:]
    if isinstance(error, StandinError):
        fault = fault_of(error, rank)
        return msgspec.structs.replace(fault, detail=f"rank {rank}: {error.detail}")
    if _is_about_memory(error):
        return fault_of(out_of_memory(rank, detail), rank)
    if _is_about_nccl_itself(error):
        return fault_of(nccl_fails(rank, str(error), detail), rank)
    if isinstance(error, RuntimeError) and _is_about_others(error):
        text = str(error)
        if any(word in text for word in _TIMED_OUT):
            return fault_of(hangs(timeout_s, detail), rank, is_consequence=True)
        lost = GeneratorError("One of the ranks is gone.", code="worker.rank_lost", detail=detail)
        return fault_of(lost, rank, is_consequence=True)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    failed = GeneratorError(
        f"Rank {rank} stopped because of an internal error: {_clause(lines[0])}.",
        code="generator.internal",
        detail=detail,
    )
    return fault_of(failed, rank)


def _is_about_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def out_of_memory(rank: int, detail: str) -> GeneratorError:
    """A rank had no memory left."""
    return GeneratorError(
        f"Rank {rank} ran out of memory.",
        code="worker.out_of_memory",
        hint="Choose a smaller picture, more GPUs, or close what else uses them.",
        detail=detail,
    )


def hangs(timeout_s: float, detail: str = "") -> GeneratorError:
    """A rank that is there but says nothing."""
    return GeneratorError(
        f"One of the ranks has not answered for {spoken(timeout_s)}.", code="worker.hangs", detail=detail
    )


def nobody_came(waited_s: float) -> GeneratorError:
    """Ranks that somebody else was to start, with torchrun."""
    return GeneratorError(
        f"No rank has come within {spoken(waited_s)}.",
        code="worker.nobody_came",
        hint="Start the ranks with torchrun, and give it the path that --ranks-at has.",
    )


def nccl_fails(rank: int, text: str, detail: str) -> GeneratorError:
    """NCCL cannot do its work on this rank; `text` is what it said."""
    reason = next(found[1] for pattern in _NCCL_REASONS if (found := pattern.search(text)))
    return GeneratorError(
        f"NCCL, which connects the GPUs, failed on rank {rank}: {_clause(reason)}.",
        code="worker.nccl",
        hint=next((hint for words, hint in _NCCL_HINTS.items() if words in text), ""),
        detail=detail,
    )


def spoken(seconds: float) -> str:
    """A time in words, such as 0.5 seconds or 30 minutes."""
    unit_s, unit = next((pair for pair in _UNITS if seconds >= 2.0 * pair[0]), (1.0, "second"))
    count = f"{seconds / unit_s:.3g}"
    return f"{count} {unit}" if count == "1" else f"{count} {unit}s"


def ended(rank: int, status: int, detail: str) -> GeneratorError:
    """A rank's process that ended without a word; `status` is negative for a signal."""
    if status == -9:
        message = f"Rank {rank} was killed."
        hint = "The system does that when memory runs out; its log says so."
    else:
        how = f"with signal {-status}" if status < 0 else f"with status {status}"
        message, hint = f"Rank {rank} ended unexpectedly {how}.", ""
    return GeneratorError(message, code="worker.rank_died", hint=hint, detail=detail)


def cause_of(faults: Iterable[Fault]) -> Fault | None:
    """The one of several that explains the others; the first of its kind."""
    return min(faults, key=lambda fault: fault.is_consequence, default=None)


def record(fault: Fault) -> None:
    """Write it where torch's launcher looks for it (TORCHELASTIC_ERROR_FILE), if this process was started by one."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        return
    extra = {"py_callstack": fault.detail, "timestamp": str(int(time.time())), "fault": msgspec.to_builtins(fault)}
    text = json.dumps({"message": {"message": f"{fault.message} {fault.hint}".strip(), "extraInfo": extra}})
    beside = Path(f"{path}.new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def recorded(path: str) -> Fault | None:
    """What a rank wrote, if it did."""
    try:
        text = json.loads(Path(path).read_text(encoding="utf-8"))
        return msgspec.convert(text["message"]["extraInfo"]["fault"], Fault)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_about_nccl_itself(error: BaseException) -> bool:
    """Unlike what NCCL says on a rank whose neighbour is gone."""
    text = str(error)
    return isinstance(error, RuntimeError) and bool(_NCCL_CAUSE.search(text)) and not _NCCL_LOST_PEER.search(text)


def _is_about_others(error: RuntimeError) -> bool:
    if type(error).__name__.startswith("Dist"):
        return True
    text = str(error).lower()
    return any(word.lower() in text for word in _LOST_PEER)


def _clause(text: str) -> str:
    return text[:_SENTENCE_CHARACTERS].strip().rstrip(".")
