"""The portrait as image features: CLIP's ViT-H/14 without its last block, under its published parameter names.

The encoder is transformers' CLIP vision tower with renamed weights. Of the published file only this part is used: the
text tower, the last block, the final norm and the projection have no effect on the result and are not loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import ModelFilesError

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
"""Of CLIP's training pictures, red, green, blue in 0..1."""

_TOP_NAMES = {
    "visual.cls_embedding": "embeddings.class_embedding",
    "visual.pos_embedding": "embeddings.position_embedding.weight",
    "visual.patch_embedding.weight": "embeddings.patch_embedding.weight",
    "visual.pre_norm.weight": "pre_layrnorm.weight",
    "visual.pre_norm.bias": "pre_layrnorm.bias",
}
_BLOCK_NAMES = {
    "norm1": "layer_norm1",
    "attn.proj": "self_attn.out_proj",
    "norm2": "layer_norm2",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
}
_FUSED_NAME = "attn.to_qkv"
_FUSED_PARTS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_PUBLISHED_BLOCK_NAME = re.compile(r"visual\.transformer\.(\d+)\.(.+)\.(weight|bias)")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageEncoderConfig:
    """Sizes of the encoder; the defaults are ViT-H/14's. `num_layers` counts the last block, which is not run."""

    image_size: int = 224
    patch_size: int = 14
    dim: int = 1280
    dim_mlp: int = 5120
    num_heads: int = 16
    num_layers: int = 32
    eps: float = 1e-5

    @classmethod
    def of(cls, state: Mapping[str, Tensor], *, num_heads: int = 16) -> ImageEncoderConfig:
        """The sizes that complete published weights have; only the number of heads leaves no trace in them.

        Raises ModelFilesError if they are of something else.
        """
        try:
            dim, _, patch_size, _ = state["visual.patch_embedding.weight"].shape
            positions = state["visual.pos_embedding"].shape[1]
            dim_mlp = state["visual.transformer.0.mlp.0.weight"].shape[0]
        except (KeyError, ValueError, IndexError) as error:
            raise ModelFilesError(
                "These are not the weights of a CLIP image encoder.",
                code="model_files.image_encoder",
                detail=repr(error),
            ) from error
        blocks = {match[1] for match in map(_PUBLISHED_BLOCK_NAME.fullmatch, state) if match}
        return cls(
            image_size=round((positions - 1) ** 0.5) * patch_size,
            patch_size=patch_size,
            dim=dim,
            dim_mlp=dim_mlp,
            num_heads=num_heads,
            num_layers=len(blocks),
        )


def build_image_encoder(config: ImageEncoderConfig, *, device: torch.device | str = "meta") -> nn.Module:
    """transformers' CLIP vision tower with all blocks but the last and no final norm, for evaluation.

    On the meta device it has shapes only, except for its one buffer, the position numbers, which are real. Load with
    `load_state_dict(rename_image_encoder(state, config), strict=True, assign=True)`.
    """
    # Only here, because it takes seconds and a stored result makes it unnecessary.
    from transformers import CLIPVisionConfig, CLIPVisionModel

    settings = CLIPVisionConfig(
        hidden_size=config.dim,
        intermediate_size=config.dim_mlp,
        num_hidden_layers=config.num_layers - 1,
        num_attention_heads=config.num_heads,
        image_size=config.image_size,
        patch_size=config.patch_size,
        layer_norm_eps=config.eps,
        hidden_act="gelu",
        attention_dropout=0.0,
    )
    with torch.device(device):
        model = CLIPVisionModel(settings)
    # Up to transformers 4 the tower lies inside the model, later the model is the tower.
    tower: Any = getattr(model, "vision_model", model)
    tower.post_layernorm = nn.Identity()
    buffer_device = "cpu" if torch.device(device).type == "meta" else device
    positions = torch.arange(tower.embeddings.num_positions, device=buffer_device)[None]
    tower.embeddings.register_buffer("position_ids", positions, persistent=False)
    return tower.eval().requires_grad_(False)


def rename_image_encoder(state: Mapping[str, Tensor], config: ImageEncoderConfig) -> dict[str, Tensor]:
    """Published weights under transformers' names: views of the same tensors, fused q, k, v taken apart.

    Unused ones are left out. KeyError for a name that does not belong in the file.
    """
    renamed = {}
    for name, tensor in state.items():
        if not is_unused_image_encoder_key(name, config):
            targets = _targets(name, config)
            renamed |= dict(zip(targets, _parts(name, tensor, len(targets)), strict=True))
    return renamed


def is_unused_image_encoder_key(name: str, config: ImageEncoderConfig) -> bool:
    """Whether the published file holds `name` though the image features do not depend on it."""
    last_block = f"visual.transformer.{config.num_layers - 1}."
    return name in ("log_scale", "visual.head") or name.startswith(("textual.", "visual.post_norm.", last_block))


def expected_image_encoder_keys(config: ImageEncoderConfig) -> dict[str, tuple[int, ...]]:
    """Published name -> shape of every parameter that is used."""
    shapes = {name: tuple(value.shape) for name, value in build_image_encoder(config).state_dict().items()}
    expected = {}
    for name in _published_names(config):
        targets = _targets(name, config)
        rows, *columns = shapes[targets[0]]
        expected[name] = (len(targets) * rows, *columns)
    expected["visual.cls_embedding"] = (1, 1, config.dim)
    expected["visual.pos_embedding"] = (1, *expected["visual.pos_embedding"])
    return expected


def _published_names(config: ImageEncoderConfig) -> Iterator[str]:
    yield from _TOP_NAMES
    for block in range(config.num_layers - 1):
        for layer in (*_BLOCK_NAMES, _FUSED_NAME):
            yield from (f"visual.transformer.{block}.{layer}.{kind}" for kind in ("weight", "bias"))


def _targets(name: str, config: ImageEncoderConfig) -> tuple[str, ...]:
    """transformers' name of a published parameter, or the three names of a fused one."""
    if name in _TOP_NAMES:
        return (_TOP_NAMES[name],)
    match = _PUBLISHED_BLOCK_NAME.fullmatch(name)
    if match is None or int(match[1]) >= config.num_layers - 1:
        raise KeyError(name)
    block, layer, kind = match.groups()
    parts = _FUSED_PARTS if layer == _FUSED_NAME else (_BLOCK_NAMES[layer],)
    return tuple(f"encoder.layers.{block}.{part}.{kind}" for part in parts)


def _parts(name: str, tensor: Tensor, count: int) -> tuple[Tensor, ...]:
    """A published tensor without the axes of length 1 that transformers' has not, or cut into `count` parts."""
    if name == "visual.cls_embedding":
        return (tensor.flatten(),)
    return (tensor.squeeze(0),) if name == "visual.pos_embedding" else tensor.chunk(count)


def preprocess_image(image: Tensor, image_size: int = 224) -> Tensor:
    """`image` [1, 3, 1, H, W] or [1, 3, H, W] in -1..1 as the encoder's float32 input [1, 3, image_size, image_size].

    Squashed to a square by plain bicubic interpolation: nothing is cut off, and shrinking is not antialiased.
    """
    picture = image.squeeze(2) if image.ndim == 5 else image
    square = nn.functional.interpolate(
        picture.float(), size=(image_size, image_size), mode="bicubic", align_corners=False, antialias=False
    )
    mean, std = (square.new_tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
    return (square * 0.5 + 0.5 - mean) / std


@torch.no_grad()
def encode_image(model: nn.Module, image: Tensor) -> Tensor:
    """Image features [1, 257, dim], the class token first, in the model's dtype and on its device.

    `image` is [1, 3, 1, H, W] or [1, 3, H, W] in -1..1.
    """
    embeddings: Any = model.embeddings
    weight = embeddings.patch_embedding.weight
    embeddings.position_ids = embeddings.position_ids.to(weight.device)
    pixels = preprocess_image(image.to(weight.device), embeddings.image_size)
    return model(pixel_values=pixels.to(weight.dtype)).last_hidden_state
