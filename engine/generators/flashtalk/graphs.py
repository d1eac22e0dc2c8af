"""CUDA graphs: a function of tensors recorded once and run again without the host, and the denoising step as one.

What is recorded reads its inputs from fixed places and writes its results to fixed places; nothing in it may wait for
the host or depend on values. Recording is tried once, checked against the function itself, and given up with a message
where it fails.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from engine.generators.flashtalk.layers import KeyValue
from engine.generators.flashtalk.transformer import ChunkConditions, DiT, StreamConditions
from engine.parallel.group import Attention, SequenceGroup

logger = logging.getLogger(__name__)

CHOICES = ("auto", "on", "off")
"""auto: where graphs were shown right and faster on a real GPU, which is nowhere yet."""
_PROVEN = False
_WARM_UPS = 2
"""Libraries choose their kernels and make their workspaces the first time, which cannot be recorded."""
_TOLERANCE = 1e-2
"""Relative: a library may take another kernel while it is recorded, but not read from somewhere else."""


class Recorder(Protocol):
    """What can record work on a device."""

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """The result of `work`, which is not there yet, and what makes it anew in the same place each time.

        Raises anything where that cannot be done. `work` may be run any number of times for it.
        """
        ...


class CudaRecorder:
    """Implements `Recorder` by CUDA graphs, all of which share one pool of memory: they must not run side by side."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """See `Recorder`."""
        with torch.cuda.device(self._device):
            side, current = torch.cuda.Stream(), torch.cuda.current_stream()
            side.wait_stream(current)
            with torch.cuda.stream(side):
                for _ in range(_WARM_UPS):
                    work()
            current.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # Other threads copy frames and watch collectives meanwhile; only this one is recorded and restricted.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                out = work()
        return out, graph.replay


class RecordsNothing:
    """Implements `Recorder` where it is known beforehand that nothing can be recorded. A rank that has this one still
    makes the same calls as the others, so that all learn of it."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """Raises `RuntimeError` with the reason."""
        raise RuntimeError(self._reason)


class GraphedCall:
    """A function of tensors, recorded: the same shapes, precisions and device each time.

    Results lie in the same memory each time and are overwritten by the next call.
    """

    def __init__(self, function: Callable[..., Tensor], like: Sequence[Tensor], recorder: Recorder) -> None:
        """Records `function` on copies of `like`; raises what the recorder raises."""
        self.inputs = [x.clone(memory_format=torch.contiguous_format) for x in like]
        self._out, self._replay = recorder.record(lambda: function(*self.inputs))

    def write(self, first: int, values: Sequence[Tensor]) -> None:
        """Give the arguments from number `first` on these values."""
        targets = self.inputs[first : first + len(values)]
        if len(values) == 1:
            targets[0].copy_(values[0])
        else:
            torch._foreach_copy_(targets, list(values))  # pyright: ignore[reportPrivateImportUsage]

    def run(self) -> Tensor:
        """The result for the arguments as they are."""
        self._replay()
        return self._out

    def __call__(self, *values: Tensor) -> Tensor:
        """The result for these arguments."""
        self.write(0, values)
        return self.run()


class Stepper:
    """Runs the transformer for one stream: as it is, or recorded once `record` was asked for and succeeded."""

    def __init__(self, dit: DiT, stream: StreamConditions, group: SequenceGroup, attention: Attention) -> None:
        self._dit, self._stream, self._group, self._attention = dit, stream, group, attention
        self._graph: GraphedCall | None = None
        self._motion = 0
        self._chunk: ChunkConditions | None = None
        self.refused = ""
        """Why nothing was recorded although it was asked for."""

    @property
    def is_recorded(self) -> bool:
        """Whether steps of chunks that continue from one before run from a graph."""
        return self._graph is not None

    def velocity(self, chunk: ChunkConditions, motion: int) -> Callable[[Tensor, int], Tensor]:
        """The sampler's `Velocity` for a chunk that continues from `motion` latent frames; its result may be
        overwritten by its next call."""

        def plain(latents: Tensor, step: int) -> Tensor:
            return self._dit(latents, step, self._stream, chunk, self._group, self._attention, motion)

        def recorded(latents: Tensor, step: int) -> Tensor:
            return self._replayed(latents, step, chunk)

        return recorded if self._graph is not None and motion == self._motion else plain

    def record(self, chunk: ChunkConditions, latents: Tensor, motion: int, recorder: Recorder) -> bool:
        """Record the step for chunks like `chunk` and `latents` that continue from `motion` latent frames.

        Every rank of the group calls this at the same point; either all have a graph afterwards or none. False where
        it could not be done, which is told and changes nothing.
        """
        self._motion = motion
        failure = "" if self._group.is_capturable else "the ranks' collectives cannot be recorded"
        graph: GraphedCall | None = None
        if not failure:
            try:
                graph = GraphedCall(self._step, self._arguments(latents, 0, chunk), recorder)
            except Exception as error:  # noqa: BLE001 - libraries and drivers refuse in any way they like
                failure = (str(error) or type(error).__name__).split("\n")[0]
        if self._all_agree(not failure, latents.device):
            self._graph = graph
            failure = self._difference(latents, chunk)
            if self._all_agree(not failure, latents.device):
                logger.info("denoising steps run from a graph")
                return True
        self._graph = self._chunk = None
        self.refused = failure or "another rank could not"
        logger.warning("denoising steps run without a graph: %s", self.refused)
        return False

    def _step(self, latents: Tensor, modulation: Tensor, head_modulation: Tensor, *audio: Tensor) -> Tensor:
        """One step of which everything that changes comes as an argument."""
        stream = replace(self._stream, modulation=modulation[None], head_modulation=head_modulation[None])
        keys = [KeyValue(k=k, v=v) for k, v in zip(audio[::2], audio[1::2], strict=True)]
        chunk = ChunkConditions(audio=keys)
        return self._dit(latents, 0, stream, chunk, self._group, self._attention, self._motion)

    def _arguments(self, latents: Tensor, step: int, chunk: ChunkConditions) -> list[Tensor]:
        return [latents, self._stream.modulation[step], self._stream.head_modulation[step], *_tensors_of(chunk)]

    def _replayed(self, latents: Tensor, step: int, chunk: ChunkConditions) -> Tensor:
        graph = self._graph
        assert graph is not None
        if chunk is not self._chunk:
            graph.write(3, _tensors_of(chunk))
            self._chunk = chunk
        graph.write(0, self._arguments(latents, step, ChunkConditions(audio=[])))
        return graph.run()

    def _difference(self, latents: Tensor, chunk: ChunkConditions) -> str:
        """What is wrong with the graph, on other values than those it was recorded with; nothing if it is right."""
        step = len(self._stream.modulation) - 1
        other = ChunkConditions(audio=[KeyValue(k=kv.k.flip(0), v=kv.v.flip(0)) for kv in chunk.audio])
        latents = latents.flip(1)
        wanted = self._dit(latents, step, self._stream, other, self._group, self._attention, self._motion)
        got = self._replayed(latents, step, other)
        error = (torch.linalg.vector_norm(got - wanted) / torch.linalg.vector_norm(wanted)).item()
        return "" if error <= _TOLERANCE else f"its result is off by {error:.3g}"

    def _all_agree(self, mine: bool, device: torch.device) -> bool:
        group = self._group
        if group.size == 1:
            return mine
        like = torch.zeros(1, dtype=torch.int32, device=device)
        flags = [
            group.share(rank, lambda: (torch.full_like(like, mine),), (like.clone(),))[0] for rank in range(group.size)
        ]
        return all(bool(flag.item()) for flag in flags)


def wants_graphs(choice: str, device: torch.device) -> bool:
    """Whether steps are to be recorded on `device` by one of `CHOICES`."""
    return device.type == "cuda" and (choice == "on" or (choice == "auto" and _PROVEN))


def _tensors_of(chunk: ChunkConditions) -> list[Tensor]:
    return [tensor for kv in chunk.audio for tensor in (kv.k, kv.v)]
