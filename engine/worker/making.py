"""The generators of one rank, made as the engine's first command says."""

from __future__ import annotations

import os
from importlib import import_module
from inspect import signature
from typing import Any

from engine.generators.base import Generator
from engine.worker.messages import Open


class GeneratorMaker:
    """Makes as many as there are streams. Raises what their class raises."""

    def __init__(self, command: Open) -> None:
        self._command = command
        self._group: Any = None

    def make(self) -> Generator:
        """One that has nothing yet."""
        kind = self._kind()
        accepted = signature(kind).parameters
        options = dict(self._command.options)
        if "device" in accepted:
            options["device"] = _own_device(str(options.get("device", "auto")))
        if "group" in accepted:
            options["group"] = self._rank_group()
        return kind(seed=self._command.seed, fps=self._command.fps, **options)

    def can(self, method: str) -> bool:
        """Whether they have it."""
        return hasattr(self._kind(), method)

    def _kind(self) -> Any:
        module, _, name = self._command.generator.partition(":")
        return getattr(import_module(module), name)

    def _rank_group(self) -> Any:
        """Made once: a new one for every stream would leave its sockets behind."""
        if self._group is None:
            self._group = import_module("engine.parallel.launch").rank_group()
        return self._group


def _own_device(wanted: str) -> str:
    """This rank's own GPU, unless another kind of device is wanted."""
    import torch

    if wanted not in ("auto", "cuda") or not torch.cuda.is_available():
        return wanted
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    torch.cuda.set_device(device)
    return device
