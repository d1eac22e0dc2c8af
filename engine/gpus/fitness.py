"""Whether a GPU can be a rank of a stream, and the words for why not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from engine.errors import DeviceError
from engine.gpus.types import Gpu
from engine.parallel.topology import RankPlan, plan_ranks, preferred_worlds

_NEVER_FREE_BYTES = 3 * 10**9
"""Of a GPU on which nobody computes: the driver's part, a desktop's and a browser's. A guess on the large side."""
_MEMORY = "gpus.memory"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the ranks share, and what each takes: `needed` gives bytes for a number of ranks."""

    heads: int
    tokens: int
    latent_rows: int
    needed: Callable[[int], int]
    fitting_size: Callable[[int, int], tuple[int, int] | None] | None = None

    def plan(self, world: int) -> RankPlan:
        """Raises `UsageError` where so many ranks cannot share it."""
        return plan_ranks(world=world, heads=self.heads, tokens=self.tokens, latent_rows=self.latent_rows)


@dataclass(frozen=True, kw_only=True)
class Unfit:
    """Why a GPU cannot do it; `what` goes on after "it"."""

    code: str
    what: str
    hint: str

    def as_error(self, gpu: Gpu) -> DeviceError:
        """For one GPU that was meant."""
        return DeviceError(f"{name_of(gpu)} cannot be used: it {self.what}.", code=self.code, hint=self.hint)


def unfit(gpu: Gpu, world: int, job: Job, others: Sequence[Gpu] = ()) -> Unfit | None:
    """Why `gpu` cannot be one of `world` ranks, None if it can. With `others`, more ranks among them may be advised."""
    if not gpu.has_bfloat16:
        capability = "{}.{}".format(*(gpu.compute_capability or (0, 0)))
        return Unfit(
            code="gpus.too_old",
            what=f"has compute capability {capability}, and bfloat16 needs 8.0",
            hint="GPUs since Ampere (RTX 30, A100) have it.",
        )
    if gpu.is_split and (world > 1 or not gpu.parts):
        return Unfit(
            code="gpus.mig",
            what="is split by MIG" + (", and parts cannot be ranks of one stream" if world > 1 else " and has no part"),
            hint=f"Take it alone, or undo the split: sudo nvidia-smi -i {gpu.system_index} -mig 0.",
        )
    needed, free = job.needed(world), free_bytes_of(gpu)
    if free is None or needed <= free:
        return None
    return Unfit(
        code=_MEMORY,
        what=f"has {free / 1e9:.1f} GB of memory free, and {needed / 1e9:.1f} GB are needed",
        hint=_memory_hint(gpu, free, world, job, others),
    )


def why_none_fits(gpus: Sequence[Gpu], job: Job, wanted: int = 1) -> DeviceError:
    """One error for all: what is the matter with each, those with the same trouble together. Code and hint are of want
    of memory, if that is the matter with any: of all troubles this one can be mended."""
    reasons: dict[str, tuple[Unfit, list[Gpu]]] = {}
    fitting = 0
    for gpu in gpus:
        reason = unfit(gpu, wanted, job, gpus)
        if reason is None:
            fitting += 1
        else:
            reasons.setdefault(reason.what, (reason, []))[1].append(gpu)
    main = min((reason for reason, _ in reasons.values()), key=lambda reason: reason.code != _MEMORY)
    if len(gpus) == 1:
        return main.as_error(gpus[0])
    told = "; ".join(
        f"{name_of(which[0])} {reason.what}" if len(which) == 1 else f"GPUs {numbers_of(which)}: each {reason.what}"
        for reason, which in reasons.values()
    )
    can = "None" if not fitting else f"Only {fitting}"
    return DeviceError(f"{can} of {len(gpus)} GPUs can be used: {told}.", code=main.code, hint=main.hint)


def name_of(gpu: Gpu) -> str:
    """Number and name; both numbers where CUDA_VISIBLE_DEVICES makes them differ."""
    system = "" if gpu.index == gpu.system_index else f", {gpu.system_index} of nvidia-smi"
    return f"GPU {gpu.index} ({gpu.name}{system})"


def numbers_of(gpus: Sequence[Gpu]) -> str:
    """Their numbers, as in 0, 1, 2."""
    return ", ".join(str(gpu.index) for gpu in gpus)


def free_bytes_of(gpu: Gpu) -> int | None:
    """What a rank on it can have; of a split GPU, its first part. None where the driver does not tell."""
    return gpu.parts[0].total_bytes or None if gpu.is_split and gpu.parts else gpu.free_bytes


def if_alone(gpu: Gpu) -> Gpu:
    """With what would be free if no program computed on it; as it is where the driver does not tell."""
    if gpu.free_bytes is None or gpu.total_bytes is None:
        return gpu
    return replace(gpu, free_bytes=max(gpu.free_bytes, gpu.total_bytes - _NEVER_FREE_BYTES))


def _memory_hint(gpu: Gpu, free: int, world: int, job: Job, others: Sequence[Gpu]) -> str:
    hints = []
    able = [other for other in others if unfit(other, world, job) is None]
    if able:
        hints.append(f"There is enough on GPU {numbers_of(able)}.")
    size = job.fitting_size(free, world) if job.fitting_size is not None else None
    if size is not None:
        hints.append(f"Pictures of {size[0]}x{size[1]} would fit.")
    user = max(gpu.processes, key=lambda process: process.used_bytes or 0, default=None)
    if user is not None and (gpu.total_bytes or 0) >= job.needed(world):
        used = f" with {user.used_bytes / 1e9:.1f} GB" if user.used_bytes else ""
        hints.append(f"{user.name} (process {user.pid}) uses it{used}; close it.")
    more = _more_ranks(gpu, world, job, others)
    if more:
        hints.append(f"With {more} ranks {job.needed(more) / 1e9:.1f} GB would do.")
    return " ".join(hints) or "Choose a larger GPU, or the puppet."


def _more_ranks(gpu: Gpu, world: int, job: Job, others: Sequence[Gpu]) -> int | None:
    """The smallest good number above `world` with which `gpu` and enough others could do it."""
    worlds = preferred_worlds(len(others), heads=job.heads, tokens=job.tokens, latent_rows=job.latent_rows)
    for other in sorted(worlds):
        able = [one for one in others if unfit(one, other, job) is None]
        if other > world and gpu in able and len(able) >= other:
            return other
    return None
