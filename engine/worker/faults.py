"""What went wrong in a rank, in words that travel: to the engine, to torch's launcher, and to the other ranks."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Iterable
from pathlib import Path

import msgspec

from engine.errors import GeneratorError, StandinError
from engine.worker.messages import Fault, fault_of

_LOST_PEER = ("gloo", "nccl", "Connection closed by peer", "Connection reset by peer", "Broken pipe")
_TIMED_OUT = ("Timed out", "timed out", "timeout", "Timeout")
_NO_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What torch says in a plain RuntimeError where an allocation failed outside of its own allocator for GPUs."""

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
    if isinstance(error, RuntimeError) and _is_about_others(error):
        text = str(error)
        if any(word in text for word in _TIMED_OUT):
            return fault_of(hangs(timeout_s, detail), rank, is_consequence=True)
        lost = GeneratorError("One of the ranks is gone.", code="worker.rank_lost", detail=detail)
        return fault_of(lost, rank, is_consequence=True)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    failed = GeneratorError(
        f"Rank {rank} stopped because of an internal error: {lines[0][:_SENTENCE_CHARACTERS].rstrip('.')}.",
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
        f"One of the ranks has not answered for {timeout_s:.3g} seconds.", code="worker.hangs", detail=detail
    )


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


def _is_about_others(error: RuntimeError) -> bool:
    if type(error).__name__.startswith("Dist"):
        return True
    text = str(error).lower()
    return any(word.lower() in text for word in _LOST_PEER)
