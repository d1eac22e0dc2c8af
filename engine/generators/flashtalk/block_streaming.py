"""Weights of some of the transformer's blocks kept on the host and brought to the device when their turn comes.

For cards that have no room for all of them. What is computed is the same to the last bit. Every rank streams a copy of
its own over its own PCIe connection; mapped files are in the host's memory only once for all of them.
"""

from __future__ import annotations

import logging
import mmap
import sys
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.generators.flashtalk.block_ring import BlockRing, CudaLane, HostLane
from engine.generators.flashtalk.quantization.linear import QUANTIZED, QuantizedLinear

logger = logging.getLogger(__name__)

SLOTS = 2
"""Buffers on the device: one computes while the other is filled."""
_LARGEST_PINNED_SHARE = 0.7
"""Of the host's free memory; what is pinned cannot be taken back by anybody."""


class BlockStreamer:
    """Brings the weights of the `streamed` blocks (by number) to `device`, from hooks around the blocks' calls.

    `blocks` hold these weights on the host. Between its calls a streamed block has none, so that whatever goes round
    the hooks fails. `sharers` is the number of processes on this machine that
    do the same: where all of them together leave the host enough memory, the weights are copied once into pinned
    memory, otherwise they are copied from where they are.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        streamed: Iterable[int],
        device: torch.device,
        *,
        slots: int = SLOTS,
        sharers: int = 1,
    ) -> None:
        self.streamed = tuple(sorted(streamed))
        chosen = [blocks[index] for index in self.streamed]
        sources = [[_held(layer) for _, layer in _layers(block)] for block in chosen]
        self.block_bytes = sum(tensor.nbytes for tensor in sources[0])
        locked: list[Tensor] = []
        if device.type == "cuda" and _may_pin(len(sources) * self.block_bytes * sharers):
            sources, locked = _pinned(sources)
        self.is_pinned = bool(locked)
        buffers = [
            [torch.empty_like(tensor, device=device) for tensor in sources[0]] for _ in range(min(slots, len(chosen)))
        ]
        self._ring = BlockRing(sources, buffers, CudaLane(device) if device.type == "cuda" else HostLane())
        # What is copied from must outlive the hooks, which hold the ring.
        weakref.finalize(self._ring, _unpin, locked).atexit = False
        for turn, block in enumerate(chosen):
            _attach(block, self._ring, turn)
        logger.info(
            "%d of %d blocks are streamed from %s memory, %.0f MB each",
            len(chosen), len(blocks), "pinned" if self.is_pinned else "the host's", self.block_bytes / 1e6,
        )  # fmt: skip

    @property
    def copies(self) -> int:
        """How many blocks were copied so far."""
        return self._ring.copies

    @property
    def slot_bytes(self) -> int:
        """What the buffers take on the device."""
        return self._ring.slot_count * self.block_bytes

    @property
    def misses(self) -> int:
        """How many of them came too late to be copied beside the computation."""
        return self._ring.misses


def _attach(block: nn.Module, ring: BlockRing, turn: int) -> None:
    """Hooks that hold no reference to the block, so that dropping the model frees it at once."""
    for _, layer in _layers(block):
        _let_go(layer)

    def before(module: nn.Module, _inputs) -> None:
        for (_, layer), tensor in zip(_layers(module), ring.enter(turn), strict=True):
            _put(layer, tensor)

    def after(module: nn.Module, _inputs, _output) -> None:
        for _, layer in _layers(module):
            _let_go(layer)
        ring.leave(turn)

    block.register_forward_pre_hook(before)
    block.register_forward_hook(after, always_call=True)


def _layers(block: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers of a block whose matrices are streamed, in a fixed order."""
    return [(name, layer) for name, layer in block.named_modules() if QUANTIZED.fullmatch(f"blocks.0.{name}.weight")]


def _held(layer: nn.Module) -> Tensor:
    return layer.quantized if isinstance(layer, QuantizedLinear) else layer.weight.data  # type: ignore[union-attr, return-value]


def _put(layer: nn.Module, tensor: Tensor) -> None:
    if isinstance(layer, QuantizedLinear):
        layer.quantized = tensor
    else:
        # A parameter's tensor cannot change its device in place.
        layer.weight = nn.Parameter(tensor, requires_grad=False)


def _let_go(layer: nn.Module) -> None:
    # Not one on the meta device: products with those are not refused everywhere.
    _put(layer, _held(layer).new_empty(0, 0))


def _may_pin(needed: int) -> bool:
    """Whether so many bytes, of all processes together, may be taken from the host for good."""
    free = free_host_bytes()
    if free is not None and needed <= _LARGEST_PINNED_SHARE * free:
        return True
    known = "unknown" if free is None else f"{free / 1e9:.1f} GB"
    logger.warning("weights are streamed unpinned: %.1f GB of host memory needed, %s free", needed / 1e9, known)
    return False


def _pinned(blocks: list[list[Tensor]]) -> tuple[list[list[Tensor]], list[Tensor]]:
    """The same in page-locked memory, and that memory; where that fails what was given, and nothing."""
    copies: list[list[Tensor]] = []
    locked: list[Tensor] = []
    try:
        for block in blocks:
            flat, tensors = _pinned_copy(block)
            copies.append(tensors)
            locked.append(flat)
    except (RuntimeError, OSError, ValueError) as error:
        logger.warning("host memory cannot be pinned, weights are streamed more slowly: %s", error)
        copies.clear()
        _unpin(locked)
        return blocks, []
    return copies, locked


def _pinned_copy(tensors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Memory of exactly their size and copies in it. Raises `RuntimeError`.

    torch's own pinned memory comes in powers of two, which would take half as much again.
    """
    size = sum(tensor.nbytes for tensor in tensors)
    flat = torch.frombuffer(mmap.mmap(-1, size), dtype=torch.uint8)
    failure = int(torch.cuda.cudart().cudaHostRegister(flat.data_ptr(), size, 0))  # type: ignore[union-attr]
    if failure:
        raise RuntimeError(f"cudaHostRegister failed with {failure}")
    copies, start = [], 0
    for tensor in tensors:
        part = flat[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        copies.append(part.copy_(tensor))
        start += tensor.nbytes
    return flat, copies


def _unpin(locked: Sequence[Tensor]) -> None:
    if locked:
        torch.cuda.synchronize()
    for flat in locked:
        torch.cuda.cudart().cudaHostUnregister(flat.data_ptr())  # type: ignore[union-attr]


def free_host_bytes() -> int | None:
    """Memory of this machine that programs could still take; None where the system does not say."""
    if sys.platform == "win32":
        return _free_windows_bytes()
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        fields = dict(line.split(":") for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _free_windows_bytes() -> int | None:
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = (("length", ctypes.c_uint32), ("load", ctypes.c_uint32), *(
            (name, ctypes.c_uint64)
            for name in ("total", "free", "total_page", "free_page", "total_virtual", "free_virtual", "extended")
        ))  # fmt: skip

    status = Status(length=ctypes.sizeof(Status))
    is_known = ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return int(status.free) if is_known else None
