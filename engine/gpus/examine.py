"""Whether the photographic generator can run on this computer's GPUs, each obstacle with the one thing to do about it.

The libraries are looked at as files: torch is never imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from engine.gpus.listing import find_gpus
from engine.gpus.types import Gpu, GpusFound
from engine.model_store.gpu_memory import SIZES, RankMemory
from engine.protocol.messages import Reason

_DRIVER_OF_CUDA = {12: 525, 13: 580}
"""The oldest driver branch for each CUDA major version, from NVIDIA's table of minor version compatibility."""
_INSTALL = 'pip install "standin[gpu]"'
_CUDA_LINE = re.compile(r"^cuda\b[^=]*=\s*['\"](\d+)(?:\.(\d+))?", re.MULTILINE)

Finding = tuple[str, Reason]
"""State as the doctor has them ("good", "limited") and what to say."""


@dataclass(frozen=True, kw_only=True)
class TorchBuild:
    """The installed torch: its version, and the CUDA it is built for (major, minor), None for the CPU alone."""

    version: str
    cuda: tuple[int, int] | None


def installed_torch() -> TorchBuild | None:
    """What is installed, None where torch is not."""
    try:
        torch = distribution("torch")
    except PackageNotFoundError:
        return None
    try:
        # Wheels of one version differ in this file alone: PyPI's for Windows have no "+cpu" in their number.
        text = Path(str(torch.locate_file("torch/version.py"))).read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = _CUDA_LINE.search(text)
    return TorchBuild(version=torch.version, cuda=(int(found[1]), int(found[2] or 0)) if found else None)


def examine_gpus(
    find: Callable[[], GpusFound] = find_gpus, torch: Callable[[], TorchBuild | None] = installed_torch
) -> list[Finding]:
    """Findings about GPUs, driver and libraries. Nothing here is worse than "limited": the puppet needs none of it."""
    found = find()
    notes: list[Finding] = [("limited", note) for note in found.notes]
    if found.problem is not None:
        return [*notes, ("limited", _only_puppet(found.problem))]
    build = torch()
    obstacles = _hardware(found.gpus) or _libraries(build, found.gpus[0].driver)
    if obstacles:
        return [*notes, *(("limited", obstacle) for obstacle in obstacles)]
    assert build is not None
    return [*notes, _ready([gpu for gpu in found.gpus if _is_able(gpu)], build)]


def _hardware(gpus: tuple[Gpu, ...]) -> list[Reason]:
    """What keeps all of them from it; nothing if one can."""
    if any(_is_able(gpu) for gpu in gpus):
        return []
    young = [gpu for gpu in gpus if gpu.has_bfloat16]
    if not young:
        gpu = max(gpus, key=lambda gpu: gpu.compute_capability or (0, 0))
        capability = "{}.{}".format(*(gpu.compute_capability or (0, 0)))
        message = f"{gpu.name} is too old for FlashTalk: compute capability {capability}, where it needs 8.0."
        return [Reason(code="gpu.too_old", message=message, hint="Use the puppet, or a GPU since RTX 30 or A100.")]
    return [_memory(max(young, key=lambda gpu: (_is_large(gpu), gpu.free_bytes or 0)))]


def _memory(gpu: Gpu) -> Reason:
    least = _least_bytes()
    total, free = _total_bytes(gpu) or 0, gpu.free_bytes or 0
    if not _is_large(gpu):
        message = f"{gpu.name} has {total / 1e9:.1f} GB of memory; FlashTalk needs {least / 1e9:.1f} GB at least."
        return Reason(code="gpu.too_small", message=message, hint="Use the puppet, or a GPU of 8 GB or more.")
    message = f"Only {free / 1e9:.1f} GB are free on {gpu.name}; FlashTalk needs {least / 1e9:.1f} GB at least."
    users = ", ".join(f"{process.name} ({process.pid})" for process in gpu.processes[:3])
    hint = f"Close what uses it: {users}." if users else "Close other programs that use the GPU."
    return Reason(code="gpu.busy", message=message, hint=hint)


def _libraries(build: TorchBuild | None, driver: str) -> list[Reason]:
    if build is None:
        message = "FlashTalk's libraries are not installed: torch is missing."
        return [Reason(code="gpu.no_torch", message=message, hint=f"Install them: {_INSTALL}.")]
    if build.cuda is None:
        message = f"torch {build.version} is built for the CPU alone."
        hint = "Install a CUDA build of torch, as pytorch.org/get-started shows for this system."
        return [Reason(code="gpu.cpu_torch", message=message, hint=hint)]
    needed = _DRIVER_OF_CUDA.get(build.cuda[0], 0)
    branch = int(driver.split(".")[0]) if driver.split(".")[0].isdigit() else needed
    if branch < needed:
        cuda = "{}.{}".format(*build.cuda)
        message = f"NVIDIA's driver {driver} is too old for torch {build.version}, which is built for CUDA {cuda}."
        return [Reason(code="gpu.driver_old", message=message, hint=f"Install driver {needed} or newer.")]
    return []


def _ready(able: list[Gpu], build: TorchBuild) -> Finding:
    """In the best of three ways that any of these has room for."""
    fitting, precision = able, ""
    for precision in ("bf16", "int8", ""):
        fitting = [gpu for gpu in able if (room := _room_bytes(gpu)) is None or room >= _least_bytes(precision)]
        if fitting:
            break
    where = f"{_largest(fitting)}; torch {build.version}"
    if precision == "bf16":
        return "good", Reason(code="", message=f"FlashTalk can run: {where}.")
    if precision:
        message = f"FlashTalk can run with weights of 8 bits (precision=int8 or fp8): {where}."
        return "good", Reason(code="", message=message)
    message = f"FlashTalk can run, slowly, with weights brought from the computer's memory at every step: {where}."
    hint = f"precision=int8 halves them; a GPU with {_least_bytes('int8') / 1e9:.0f} GB free would hold them all."
    return "limited", Reason(code="gpu.streamed", message=message, hint=hint)


def _largest(gpus: list[Gpu]) -> str:
    largest = max(gpus, key=lambda gpu: gpu.free_bytes or 0)
    free = f"{(largest.free_bytes or 0) / 1e9:.0f} GB free" if largest.free_bytes is not None else "memory unknown"
    return f"{largest.name if len(gpus) == 1 else f'{len(gpus)} GPUs, the largest {largest.name}'}, {free}"


def _only_puppet(problem: Reason) -> Reason:
    message = f"{problem.message.rstrip('.')}; FlashTalk cannot run."
    return Reason(code=problem.code, message=message, hint=problem.hint, detail=problem.detail)


def _is_able(gpu: Gpu) -> bool:
    enough = gpu.free_bytes is None or gpu.is_split or gpu.free_bytes >= _least_bytes()
    return gpu.has_bfloat16 and _is_large(gpu) and enough


def _is_large(gpu: Gpu) -> bool:
    total = _total_bytes(gpu)
    return total is None or total >= _least_bytes()


def _room_bytes(gpu: Gpu) -> int | None:
    return _total_bytes(gpu) if gpu.is_split else gpu.free_bytes


def _total_bytes(gpu: Gpu) -> int | None:
    """Of a split GPU, of its largest part."""
    return max((part.total_bytes for part in gpu.parts), default=0) if gpu.is_split else gpu.total_bytes


def _least_bytes(precision: str = "") -> int:
    """For the smallest offered picture on one GPU: with all weights there in that precision, or streamed ones."""
    memory = RankMemory().at(precision) if precision else RankMemory().streaming()
    return min(memory.needed_bytes(height=height, width=width) for height, width in SIZES)
