"""What the set-up weights make of a prompt, a portrait and the timesteps, kept on disk.

4.44 of 18.9 billion parameters are needed for nothing else, so that a start which finds all three reads 8.9 GB less. On
several ranks rank 0 alone looks and stores, and sends what it has found: what lies on other ranks' disks is not asked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.generators.flashtalk.config import DiTConfig
from engine.generators.flashtalk.feature_cache import (
    content_key,
    features_folder,
    read_entry,
    remove_oldest,
    write_entry,
)
from engine.generators.flashtalk.layers import KeyValue
from engine.generators.flashtalk.quantization.store import checkpoint_key
from engine.generators.flashtalk.transformer import DiT, SetUp, is_set_up_only
from engine.generators.pieces import Piece, Pieces
from engine.model_store.checkpoint import CheckpointReport
from engine.parallel.group import SequenceGroup
from engine.parallel.launch import RankGroup

logger = logging.getLogger(__name__)

_FORMAT = "set-up 1"
"""Part of every key; to be counted up when the same weights come to make other numbers."""
_KEPT_BYTES = 4_000_000_000
"""About fifteen portraits in 16 bits."""
_TEXT, _IMAGE, _TIMES = "text", "image", "times"
_NAMES = {_TEXT: ("k", "v", "bias"), _IMAGE: ("k", "v"), _TIMES: ("blocks", "head")}


_Keys = Pieces[list[KeyValue]]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a set-up is made of: `text_key` and `image_key` stand for the features, `timesteps` [steps] for themselves.
    `dtype` is that of the transformer."""

    text_key: str
    image_key: str
    timesteps: Tensor
    dtype: torch.dtype
    device: torch.device


class SetUpCache:
    """The set-up of one stream, found or made. Every rank makes the same calls: `find`, then `set_up`, then `store`.

    Nothing raises because of what is on the disk: what cannot be read is made, what cannot be stored is logged.
    """

    def __init__(self, report: CheckpointReport, inputs: Inputs, ranks: RankGroup | None = None) -> None:
        self._inputs, self._ranks = inputs, ranks
        self._config = DiTConfig.from_dict(report.config)
        self._files = report.transformer_files
        self._paths: dict[str, Path] = {}
        self._found: dict[str, dict[str, Tensor]] = {}
        self._is_found = dict.fromkeys(_NAMES, False)
        self._made: dict[str, dict[str, Tensor]] = {}

    @property
    def has_text(self) -> bool:
        """Whether no text features are needed."""
        return self._is_found[_TEXT]

    @property
    def has_image(self) -> bool:
        """Whether no image features are needed."""
        return self._is_found[_IMAGE]

    def find(self) -> None:
        """Read what is stored, before the model is there, unless `look` has. All ranks go by what rank 0 finds."""
        if self._ranks is None or self._ranks.rank == 0:
            self.look()
        found = self._from_first(lambda: torch.tensor([part in self._found for part in _NAMES], dtype=torch.int32))
        self._is_found = dict(zip(_NAMES, map(bool, found.tolist()), strict=True))
        logger.info("set-up found on disk: %s", ", ".join(p for p, found in self._is_found.items() if found) or "none")

    def look(self) -> None:
        """Of `find`, what rank 0 does alone, and may do in another thread before."""
        if self._paths:
            return
        self._paths = self._paths_of()
        for part, path in self._paths.items():
            found = read_entry(path, _NAMES[part])
            if found is not None and self._fits(part, found):
                self._found[part] = found
        self._is_found = {part: part in self._found for part in _NAMES}

    def set_up(self, dit: DiT, group: SequenceGroup, text: Tensor | None, image: Tensor | None) -> Pieces[SetUp]:
        """What was found, and what `dit` makes of the features [n, width], to be stored for the next time. Features
        that were found not to be needed may be None."""

        def keys(make: Callable[[Tensor, SequenceGroup], _Keys], features: Tensor | None) -> _Keys:
            assert features is not None
            return make(features, group)

        timesteps = self._inputs.timesteps.to(dit.device)
        spoken = yield from self._keys(_TEXT, lambda: keys(dit.text_keys_in_pieces, text))
        pictured = yield from self._keys(_IMAGE, lambda: keys(dit.image_keys_in_pieces, image))
        yield Piece(name="timesteps")
        return SetUp(text=spoken, image=pictured, times=self._times(lambda: dit.time_vectors(timesteps)))

    def store(self) -> None:
        """Write what was made, for the next time; rank 0 has it. May be called in another thread."""
        while self._made:
            part, made = self._made.popitem()
            path = self._paths[part]
            if write_entry(path, made):
                remove_oldest(path.parent, most_bytes=_KEPT_BYTES)

    def _keys(self, part: str, make: Callable[[], _Keys]) -> _Keys:
        if self._is_found[part]:
            yield Piece(name=f"{part} found")
            sent = self._send(part)
            bias = sent.get("bias")
            return [KeyValue(k=k, v=v, bias=bias) for k, v in zip(sent["k"], sent["v"], strict=True)]
        made = yield from make()
        yield Piece(name="copy", is_alone=True)
        self._keep(part, lambda: _packed(made))
        return made

    def _times(self, make: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        if self._is_found[_TIMES]:
            sent = self._send(_TIMES)
            return sent["blocks"], sent["head"]
        made = make()
        self._keep(_TIMES, lambda: dict(zip(_NAMES[_TIMES], (tensor.cpu() for tensor in made), strict=True)))
        return made

    def _send(self, part: str) -> dict[str, Tensor]:
        found = self._found.pop(part, {})
        return {name: self._from_first(lambda name=name: found.pop(name)) for name in _NAMES[part]}

    def _from_first(self, make: Callable[[], Tensor]) -> Tensor:
        device = self._inputs.device
        return make().to(device) if self._ranks is None else self._ranks.from_first(make, device)

    def _keep(self, part: str, pack: Callable[[], dict[str, Tensor]]) -> None:
        if part in self._paths:
            self._made[part] = pack()

    def _paths_of(self) -> dict[str, Path]:
        """Part -> where it is stored; none if the checkpoint cannot be told, of which loading it tells more."""
        inputs = self._inputs
        try:
            weights = checkpoint_key(self._files, is_set_up_only)
        except (OSError, ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
            logger.info("the set-up of this checkpoint cannot be kept: %s", error)
            return {}
        common = (_FORMAT, weights, str(inputs.dtype), inputs.device.type)
        keys = {
            _TEXT: content_key(*common, _TEXT, inputs.text_key),
            _IMAGE: content_key(*common, _IMAGE, inputs.image_key),
            _TIMES: content_key(*common, _TIMES, *map(str, inputs.timesteps.tolist())),
        }
        return {part: features_folder() / "set-up" / f"{key}.safetensors" for part, key in keys.items()}

    def _fits(self, part: str, found: dict[str, Tensor]) -> bool:
        """Whether the tensors have the shapes and precision that this model wants."""
        config, shapes = self._config, {name: tuple(tensor.shape) for name, tensor in found.items()}
        wide = torch.promote_types(self._inputs.dtype, torch.float32)
        dtypes = {name: self._inputs.dtype if name in ("k", "v") else wide for name in found}
        if part == _TIMES:
            steps = len(self._inputs.timesteps)
            wanted = {"blocks": (steps, 6, config.dim), "head": (steps, config.dim)}
        else:
            rows = (shapes["k"] + (0, 0))[1]
            form = (config.num_layers, rows, config.num_heads, config.head_dim)
            wanted = {"k": form, "v": form, "bias": (rows,)}
        is_fit = all(shapes[name] == wanted[name] and found[name].dtype == dtypes[name] for name in found)
        if not is_fit:
            logger.warning("what is stored in %s is of another form and is made again", self._paths[part])
        return is_fit


def _packed(keys: list[KeyValue]) -> dict[str, Tensor]:
    """All layers' in one tensor each, on the host."""
    packed = {"k": torch.stack([key.k.cpu() for key in keys]), "v": torch.stack([key.v.cpu() for key in keys])}
    return packed if keys[0].bias is None else {**packed, "bias": keys[0].bias.cpu()}
