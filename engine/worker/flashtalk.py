"""FlashTalk in ranks: the options of its generator, and how many ranks there are and where."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from typing import Any

from engine.errors import DeviceError, UsageError
from engine.generators.base import Progress
from engine.generators.flashtalk.options import FlashTalkOptions, find_checkpoint, takes_flashtalk_options
from engine.gpus.fitness import free_bytes_of, if_alone
from engine.gpus.types import Gpu
from engine.media import Notice, Portrait
from engine.model_store.checkpoint import CheckpointReport
from engine.model_store.gpu_memory import RankMemory, rank_memory
from engine.worker.generator import RankedGenerator
from engine.worker.gpus import GpuChoice, choose_gpus_for, list_gpus
from engine.worker.group_settings import GroupSettings

logger = logging.getLogger(__name__)

_GENERATOR = "engine.generators.flashtalk.generator:FlashTalkGenerator"


@takes_flashtalk_options
class RankedFlashTalk(RankedGenerator):
    """Takes the `FlashTalkOptions` and hands them to every rank, and in addition:

    `ranks`, how many processes on this machine; `gpus`, which of its GPUs they use, as `engine.worker.gpus` takes it
    ("auto", "all", "2", "0,2"; one rank each); `ranks_at`, a socket where the ranks of torchrun are awaited instead;
    `timeout_s`, after which a rank that does not answer is given up. Raises `UsageError`.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        ranks: int | None = None,
        gpus: str | int = "",
        ranks_at: str = "",
        timeout_s: float = 20.0,
        **options: Any,
    ) -> None:
        self._options = FlashTalkOptions.of(options)
        self._shape, self._ranks = self._options.shape, ranks
        self._gpus_wanted = _gpus_wanted(str(gpus).strip(), ranks, self._options.device)
        self._choice: GpuChoice | None = None
        super().__init__(
            GroupSettings(
                generator=_GENERATOR,
                seed=seed,
                fps=self._options.fps,
                options=tuple(self._options.as_dict().items()),
                spec=self._options.spec,
                ranks=1 if ranks is None else ranks,
                gpus=str(gpus).strip(),
                ranks_at=os.path.expanduser(str(ranks_at)),
                timeout_s=timeout_s,
            )
        )

    def check(self) -> None:
        """Files, libraries and GPUs. Raises `ModelFilesError`, `GeneratorError`, `DeviceError` or `UsageError`."""
        super().check()
        report = find_checkpoint(*self._options.folders)
        if not self._is_running():
            self._chosen(report)

    def check_room(self) -> None:
        """`check`, and whether ranks that start now, beside all that runs, would have as many GPUs and as many of the
        weights on them as if they had the GPUs to themselves: where they come to lie, they stay. Raises what `check`
        raises."""
        super().check()
        report = find_checkpoint(*self._options.folders)
        if self._settings.ranks_at or self._is_running() or self._options.device == "cpu":
            return
        wanted, gpus = self._candidates()
        if gpus or self._settings.gpus:
            self._check_room_on(wanted, gpus, rank_memory(report).at(self._options.precision))

    def prepare(self, portrait: Portrait, size: tuple[int, int], progress: Progress) -> list[Notice]:
        """See `RankedGenerator.prepare`; also says what should be known about the GPUs."""
        notices = super().prepare(portrait, size, progress)
        warnings = self._choice.warnings if self._choice is not None else ()
        return [*notices, *(Notice(code="gpus.warning", message=warning) for warning in warnings)]

    def _decided(self) -> GroupSettings:
        """With the GPUs that are best now; without any, the ranks must leave the processor to the camera."""
        settings = super()._decided()
        if settings.ranks_at or not self._gpus_wanted:
            return dataclasses.replace(settings, gpus="", is_background=_is_cpu(self._options.device))
        self._choice = self._chosen(find_checkpoint(*self._options.folders))
        if self._choice is None:
            return dataclasses.replace(settings, is_background=_is_cpu(self._options.device))
        logger.info("%s", self._choice.sentence)
        return dataclasses.replace(settings, ranks=self._choice.plan.world, gpus=self._choice.cuda_visible_devices)

    def _chosen(self, report: CheckpointReport) -> GpuChoice | None:
        """The GPUs for what is wanted; None where nothing is, or where there is no GPU and none was named."""
        if self._settings.ranks_at or not self._gpus_wanted:
            return None
        gpus = list_gpus()
        if not gpus and not self._settings.gpus:
            return None
        choice, _ = self._choice_of(self._gpus_wanted, gpus, rank_memory(report).at(self._options.precision))
        return choice

    def _choice_of(self, wanted: str, gpus: Sequence[Gpu], memory: RankMemory) -> tuple[GpuChoice, RankMemory]:
        """Those with room for all weights; with offload=auto, where there are none, those with room for two blocks.
        With the memory that was asked for."""
        offload = self._options.offload
        if offload.isdigit():
            memory = memory.streaming(max(0, memory.layers - int(offload)))
        try:
            return self._with(wanted, gpus, memory), memory
        except DeviceError as error:
            if offload != "auto" or error.code != "gpus.memory":
                raise
        return self._with(wanted, gpus, memory.streaming()), memory.streaming()

    def _with(self, wanted: str, gpus: Sequence[Gpu], memory: RankMemory) -> GpuChoice:
        choice = choose_gpus_for(wanted, gpus, memory, height=self._shape.height, width=self._shape.width)
        if self._ranks not in (None, choice.plan.world):
            raise UsageError(
                f"{self._ranks} ranks cannot use {choice.plan.world} GPUs.", hint="Name as many GPUs as ranks."
            )
        return choice

    def _candidates(self) -> tuple[str, list[Gpu]]:
        """What is wanted, and of what; where nothing is, the GPU that the only rank will take, if it is there."""
        gpus = list_gpus()
        if self._gpus_wanted:
            return self._gpus_wanted, gpus
        _, _, number = self._options.device.partition(":")
        index = int(number or 0)
        # Whether it is too old is for the rank to say.
        own = [dataclasses.replace(gpu, compute_capability=None) for gpu in gpus if gpu.index == index]
        return f"{index},", own

    def _check_room_on(self, wanted: str, gpus: Sequence[Gpu], memory: RankMemory) -> None:
        alone, asked = self._choice_of(wanted, [if_alone(gpu) for gpu in gpus], memory)
        world = alone.plan.world
        free = [free for gpu in alone.gpus if (free := free_bytes_of(gpu)) is not None]
        if self._options.offload == "auto" and free:
            sides = {"height": self._shape.height, "width": self._shape.width}
            asked = memory.fitting(min(free), world, **sides) or asked
        beside = self._with(wanted, gpus, asked)
        if beside.plan.world < world:
            raise DeviceError(
                f"There is room for {beside.plan.world} ranks, where {world} could share the work.",
                code="gpus.memory",
                hint="Close other programs that use the GPUs.",
            )


def _is_cpu(device: str) -> bool:
    return device == "cpu" or (device == "auto" and not list_gpus())


def _gpus_wanted(gpus: str, ranks: int | None, device: str) -> str:
    """In the words of `engine.worker.gpus`, empty where the ranks look for themselves."""
    if gpus and device == "cpu":
        raise UsageError("The CPU and GPUs cannot be chosen together.", hint="Leave out --gpus or --device.")
    if device.startswith("cuda:") and (gpus or (ranks or 1) > 1):
        raise UsageError(f"Several ranks cannot all use {device}.", hint="Say which GPUs with --gpus 0,1.")
    if gpus in ("", "auto") and ranks is not None and ranks > 1 and device != "cpu":
        return str(ranks)
    return gpus
