"""What makes a group of ranks, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.generators.base import GeneratorSpec


@dataclass(frozen=True, kw_only=True)
class GroupSettings:
    """What makes a group: two streams with equal settings share one. `options` are the generator's own as JSON.

    `ranks` processes are started here on `gpus` (as in CUDA_VISIBLE_DEVICES, empty for all); or torchrun's come to
    the socket `ranks_at`. A collective may take `timeout_s`, and `load_timeout_s` while a model is loaded or compiled,
    unless all ranks stand still for `still_s`. Ranks that compute on the machine's processor are `is_background`:
    they give way to the camera and to everything else on it.
    """

    generator: str
    seed: int
    fps: int
    options: tuple[tuple[str, Any], ...]
    spec: GeneratorSpec
    ranks: int = 1
    gpus: str = ""
    ranks_at: str = ""
    timeout_s: float = 20.0
    load_timeout_s: float = 1800.0
    still_s: float = 60.0
    is_background: bool = False
