"""Which GPUs the ranks of a stream run on: "auto", "all", a number of them, or those that are named. Without torch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from engine.errors import DeviceError, UsageError
from engine.gpus.fitness import Job, Unfit, free_bytes_of, name_of, numbers_of, unfit, why_none_fits
from engine.gpus.links import is_nvlink, link_between, link_rank, link_words, slowest_link
from engine.gpus.listing import list_gpus
from engine.gpus.types import Gpu
from engine.model_store.gpu_memory import RankMemory, tokens_of
from engine.parallel.topology import RankPlan, divides_evenly, preferred_worlds

__all__ = ["GpuChoice", "choose_gpus", "choose_gpus_for", "list_gpus"]

_SPEEDS = {(8, 0): 300, (8, 6): 150, (8, 9): 300, (9, 0): 990, (10, 0): 2250, (12, 0): 400}
"""Dense bfloat16 TFLOP/s of a typical large GPU of each generation, as published by the maker: for comparing only."""
_MOST_SETS = 20_000
_NAMES = re.compile(r"(?:(?:cuda:)?(\d+)|(GPU-[0-9a-fA-F-]+))")


@dataclass(frozen=True, kw_only=True)
class GpuChoice:
    """What runs where: rank i on `gpus[i]`. `sentence` and `warnings` are for people."""

    gpus: tuple[Gpu, ...]
    plan: RankPlan
    needed_bytes: int
    sentence: str
    warnings: tuple[str, ...] = ()

    @property
    def cuda_visible_devices(self) -> str:
        """The value of that variable for the ranks, by UUID, which means the same in every order of counting."""
        return ",".join(gpu.parts[0].uuid if gpu.is_split and gpu.parts else gpu.uuid for gpu in self.gpus)


def choose_gpus_for(wanted: str, gpus: Sequence[Gpu], memory: RankMemory, *, height: int, width: int) -> GpuChoice:
    """As `choose_gpus`, for pictures of that size (px) from a checkpoint that takes `memory`."""
    return choose_gpus(
        wanted,
        gpus,
        heads=memory.heads,
        tokens=tokens_of(height, width),
        latent_rows=height // 8,
        needed_bytes=lambda world: memory.needed_bytes(world, height=height, width=width),
        fitting_size=lambda free, world: memory.fitting_size(free, world, below=(height, width)),
    )


def choose_gpus(
    wanted: str,
    gpus: Sequence[Gpu],
    *,
    heads: int = 40,
    tokens: int = 12096,
    latent_rows: int = 96,
    needed_bytes: int | Callable[[int], int],
    fitting_size: Callable[[int, int], tuple[int, int] | None] | None = None,
) -> GpuChoice:
    """The GPUs meant by `wanted`: "auto" (as many of one kind as share the work evenly), "all", "2" (the two that are
    connected best) or "0,2" (these; "0," is number 0 alone; "cuda:0" and UUIDs are understood as well).

    `needed_bytes` is what each rank takes, or a function of the number of ranks; `fitting_size` gives the picture size
    (height, width) that would do with so many free bytes and so many ranks. Raises `UsageError` for what cannot be
    meant, `DeviceError` for what these GPUs cannot do, with the numbers.
    """
    needed = needed_bytes if callable(needed_bytes) else lambda world: needed_bytes
    job = Job(heads=heads, tokens=tokens, latent_rows=latent_rows, needed=needed, fitting_size=fitting_size)
    text = wanted.strip()
    if not gpus:
        raise DeviceError(
            "No NVIDIA GPU can be used here.",
            code="gpus.none",
            hint="`standin doctor` says why; the puppet needs none.",
        )
    if text.lower() == "auto":
        chosen = _auto(gpus, job)
    elif text.isdigit():
        chosen = _counted(int(text), gpus, job)
    else:
        chosen = list(gpus) if text.lower() == "all" else _named(text, gpus)
    return _choice(chosen, gpus, job, is_auto=text.lower() == "auto")


def _auto(gpus: Sequence[Gpu], job: Job) -> list[Gpu]:
    best: list[list[Gpu]] = []
    for kind in _kinds(gpus):
        for world in preferred_worlds(len(kind), heads=job.heads, tokens=job.tokens, latent_rows=job.latent_rows):
            fitting = _fitting(kind, world, job)
            if len(fitting) >= world:
                best.append(_best_connected(fitting, world))
                break
    if not best:
        raise why_none_fits(gpus, job)
    return max(best, key=lambda chosen: (not chosen[0].is_split, len(chosen) * _speed(chosen[0])))


def _counted(count: int, gpus: Sequence[Gpu], job: Job) -> list[Gpu]:
    if count < 1:
        raise UsageError("At least one GPU is needed.", code="gpus.count", hint=f'GPU {count} alone is "{count},".')
    if count > len(gpus):
        there = "only one GPU is" if len(gpus) == 1 else f"only {len(gpus)} GPUs are"
        raise DeviceError(
            f"{count} GPUs are wanted, and {there} here.",
            code="gpus.count",
            hint=f'Say "auto", or "{count}," for GPU {count} alone.' if count < len(gpus) else 'Say "auto".',
        )
    job.plan(count)
    groups = [_fitting(kind, count, job) for kind in _kinds(gpus)]
    enough = [group for group in groups if len(group) >= count] or [_fitting(gpus, count, job)]
    if len(enough[0]) < count:
        raise why_none_fits(gpus, job, count)
    return max((_best_connected(group, count) for group in enough), key=lambda chosen: _speed(chosen[0]))


def _named(text: str, gpus: Sequence[Gpu]) -> list[Gpu]:
    chosen: list[Gpu] = []
    for word in (word.strip() for word in text.rstrip(",").split(",")):
        found = _NAMES.fullmatch(word)
        if found is None:
            raise UsageError(
                f'"{text}" does not name GPUs.', code="gpus.words", hint='Say auto, all, a number, or a list as "0,2".'
            )
        matching = [gpu for gpu in gpus if _is_called(gpu, found)]
        if len(matching) != 1:
            raise UsageError(
                f"{'Several GPUs begin with' if matching else 'There is no GPU'} {found[1] or found[2]}; "
                f"there {_are_called(gpus)}.",
                code="gpus.unknown",
                hint="`standin devices` lists them.",
            )
        gpu = matching[0]
        if gpu in chosen:
            raise UsageError(
                f"GPU {gpu.index} is named twice.", code="gpus.twice", hint="A rank needs a GPU of its own."
            )
        chosen.append(gpu)
    return chosen


def _is_called(gpu: Gpu, name: re.Match[str]) -> bool:
    return gpu.index == int(name[1]) if name[1] else gpu.uuid.lower().startswith(name[2].lower())


def _are_called(gpus: Sequence[Gpu]) -> str:
    return "is only GPU 0" if len(gpus) == 1 else f"are 0 to {len(gpus) - 1}"


def _choice(chosen: list[Gpu], gpus: Sequence[Gpu], job: Job, *, is_auto: bool) -> GpuChoice:
    world = len(chosen)
    plan = job.plan(world)
    for gpu in chosen:
        reason = unfit(gpu, world, job, gpus)
        if reason is not None:
            raise reason.as_error(gpu)
    return GpuChoice(
        gpus=tuple(chosen),
        plan=plan,
        needed_bytes=job.needed(world),
        sentence=_sentence(chosen, gpus, job, is_auto=is_auto),
        warnings=tuple(_warnings(chosen, gpus, job, is_auto=is_auto)),
    )


def _sentence(chosen: list[Gpu], gpus: Sequence[Gpu], job: Job, *, is_auto: bool) -> str:
    world = len(chosen)
    names = " and ".join(dict.fromkeys(gpu.name for gpu in chosen))
    text = f"{'GPU' if world == 1 else 'GPUs'} {numbers_of(chosen)} of {len(gpus)} ({names})"
    slowest = slowest_link(chosen)
    if slowest:
        text += f", connected by {link_words(slowest)}"
    text += f": {job.plan(world).describe()}"
    usable = max(len(_fitting(kind, world, job)) for kind in _kinds(gpus) if chosen[0] in kind)
    if is_auto and usable > world:
        text += f", because {job.heads} heads and {job.tokens} tokens divide by {world} and not by {usable}"
    free = [free for gpu in chosen if (free := free_bytes_of(gpu)) is not None]
    has = f" of {'' if world == 1 else 'at least '}{min(free) / 1e9:.1f} GB that are free" if free else ""
    return f"{text}; {'it' if world == 1 else 'each'} needs {job.needed(world) / 1e9:.1f} GB{has}."


def _warnings(chosen: list[Gpu], gpus: Sequence[Gpu], job: Job, *, is_auto: bool) -> Iterable[str]:
    world = len(chosen)
    if len({gpu.name for gpu in chosen}) > 1:
        slowest = min(chosen, key=lambda gpu: (_speed(gpu), gpu.total_bytes or 0))
        yield f"The GPUs differ, and all work at the pace of the slowest, {name_of(slowest)}."
    if not divides_evenly(world, heads=job.heads, tokens=job.tokens):
        even = [n for n in range(1, len(gpus) + 1) if divides_evenly(n, heads=job.heads, tokens=job.tokens)]
        yield f"{world} ranks do not share the work evenly; {_listed(even)} would."
    if world > 1 and slowest_link(chosen) and not is_nvlink(slowest_link(chosen) or ""):
        yield "Not all of them are connected by NVLink; what they exchange takes longer over PCIe."
    if is_auto:
        for gpu in gpus:
            reason: Unfit | None = None if gpu in chosen else unfit(gpu, world, job, gpus)
            if reason is not None:
                yield f"{name_of(gpu)} is left out: it {reason.what}."


def _listed(numbers: Sequence[int]) -> str:
    return " and ".join(filter(None, [", ".join(map(str, numbers[:-1])), str(numbers[-1])]))


def _kinds(gpus: Sequence[Gpu]) -> list[list[Gpu]]:
    kinds: dict[object, list[Gpu]] = {}
    for gpu in gpus:
        kinds.setdefault((gpu.name, gpu.compute_capability, gpu.is_split), []).append(gpu)
    return list(kinds.values())


def _fitting(gpus: Iterable[Gpu], world: int, job: Job) -> list[Gpu]:
    return [gpu for gpu in gpus if unfit(gpu, world, job) is None]


def _best_connected(gpus: list[Gpu], count: int) -> list[Gpu]:
    """Those whose slowest connection is the fastest; then all connections, then free memory, then order."""
    if math.comb(len(gpus), count) > _MOST_SETS:
        return gpus[:count]
    return list(max(combinations(gpus, count), key=_goodness))


def _goodness(gpus: tuple[Gpu, ...]) -> tuple[int, int, int]:
    ranks = [link_rank(link_between(one, other)) for one, other in combinations(gpus, 2)]
    return min(ranks, default=0), sum(ranks), sum(gpu.free_bytes or 0 for gpu in gpus)


def _speed(gpu: Gpu) -> int:
    known = [speed for version, speed in _SPEEDS.items() if version <= (gpu.compute_capability or (0, 0))]
    return known[-1] if known else 1
