"""Sound as speech features: wav2vec2, one row of twelve layers per video frame.

The layers are transformers' wav2vec2 under their published names. What is our own is the way through them: the
convolutions give about 50 rows a second, which are interpolated to one per video frame before the transformer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import ModelFilesError
from engine.media import SAMPLE_RATE_HZ

_PREFIX = "wav2vec2."
_UNUSED_NAMES = ("quantizer.", "project_hid.", "project_q.", "masked_spec_embed")
"""Only training needs them."""
_POSITION_CONV = "encoder.pos_conv_embed.conv"
_NEWER_NAMES = {
    f"{_POSITION_CONV}.parametrizations.weight.original0": f"{_POSITION_CONV}.weight_g",
    f"{_POSITION_CONV}.parametrizations.weight.original1": f"{_POSITION_CONV}.weight_v",
}
_VARIANCE_FLOOR = 1e-7

WINDOW = 5
"""Rows of speech features around a video frame that are heard with it."""
LATENT_STRIDE = 4
"""Video frames in a latent frame, except the first latent frame, which is one video frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeechEncoderConfig:
    """What the encoder's files say of it, in their own words; the defaults are chinese-wav2vec2-base's."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    conv_dim: tuple[int, ...] = (512,) * 7
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    feat_extract_norm: str = "group"
    feat_extract_activation: str = "gelu"
    hidden_act: str = "gelu"
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    layer_norm_eps: float = 1e-5
    do_normalize: bool = False
    """Whether the sound is brought to zero mean and unit variance first."""

    @classmethod
    def of(cls, config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None) -> SpeechEncoderConfig:
        """From the contents of `config.json` and `preprocessor_config.json`.

        As in transformers, the sound is normalised unless the second says that it is not. Raises ModelFilesError
        for another kind of encoder.
        """
        preprocessor = preprocessor or {}
        unfit = [name for name in ("do_stable_layer_norm", "add_adapter") if config.get(name)]
        unfit += ["model_type"] if config.get("model_type", "wav2vec2") != "wav2vec2" else []
        unfit += ["sampling_rate"] if preprocessor.get("sampling_rate", SAMPLE_RATE_HZ) != SAMPLE_RATE_HZ else []
        if unfit:
            raise ModelFilesError(
                f"This speech encoder is not of the kind that FlashTalk listens with ({', '.join(unfit)}).",
                code="model_files.speech_encoder",
                hint="It wants chinese-wav2vec2-base.",
            )
        known = {field.name for field in fields(cls)} & config.keys() - {"do_normalize"}
        values: dict[str, Any] = {name: config[name] for name in known}
        values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**values, do_normalize=preprocessor.get("do_normalize", True))

    @classmethod
    def from_directory(cls, folder: Path) -> SpeechEncoderConfig:
        """Of the encoder in `folder`. Raises ModelFilesError if its `config.json` is missing, unreadable or unfit."""
        preprocessor = folder / "preprocessor_config.json"
        return cls.of(_read_json(folder / "config.json"), _read_json(preprocessor) if preprocessor.is_file() else None)


class SpeechEncoder(nn.Module):
    """wav2vec2 with interpolation to the frame rate; parameters are named as published, without the prefix."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        # Only here, because it takes seconds.
        from transformers import Wav2Vec2Model

        parts = Wav2Vec2Model(_transformers_config(config))
        self.config = config
        self.feature_extractor = parts.feature_extractor
        self.feature_projection = parts.feature_projection
        self.encoder = parts.encoder
        # Without weight normalisation, which would be computed anew for every chunk; it is in the weights already.
        self.encoder.pos_conv_embed.conv = nn.Conv1d(
            config.hidden_size,
            config.hidden_size,
            config.num_conv_pos_embeddings,
            padding=config.num_conv_pos_embeddings // 2,
            groups=config.num_conv_pos_embedding_groups,
        )

    def forward(self, waveform: Tensor, frames: int) -> Tensor:
        """Outputs of all layers, [frames, layers, C], for `waveform` [n]; nothing waits for the device."""
        if self.config.do_normalize:
            deviation = (waveform.var(correction=0) + _VARIANCE_FLOOR).sqrt()
            waveform = (waveform - waveform.mean()) / deviation
        features = interpolate_rows(self.feature_extractor(waveform[None]), frames)
        hidden = self.feature_projection(features.transpose(1, 2))[0]
        hidden = self.encoder.layer_norm(hidden + self.encoder.pos_conv_embed(hidden))
        outputs = []
        for layer in self.encoder.layers:
            output = layer(hidden)
            # Up to transformers 4 a layer returns a tuple.
            hidden = output[0] if isinstance(output, tuple) else output
            outputs.append(hidden[0])
        return torch.stack(outputs, 1)


def build_speech_encoder(config: SpeechEncoderConfig, *, device: torch.device | str = "meta") -> SpeechEncoder:
    """The encoder for evaluation; on the meta device it has shapes only. It holds no buffers.

    Load with `load_state_dict(rename_speech_encoder(state), strict=True, assign=True)`, and keep it in float32.
    """
    with torch.device(device):
        model = SpeechEncoder(config)
    return model.eval().requires_grad_(False)


def speech_encoder_key(name: str) -> str:
    """The older published name, without prefix, of a parameter of any published file, old or new."""
    name = name.removeprefix(_PREFIX)
    return _NEWER_NAMES.get(name, name)


def is_unused_speech_encoder_key(name: str) -> bool:
    """Whether a published file may hold `name` though the features do not depend on it."""
    return name.removeprefix(_PREFIX).startswith(_UNUSED_NAMES)


def rename_speech_encoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published weights under the model's names, unused ones left out, the weight normalisation multiplied out."""
    renamed = {
        speech_encoder_key(name): value for name, value in state.items() if not is_unused_speech_encoder_key(name)
    }
    gain = renamed.pop(f"{_POSITION_CONV}.weight_g")
    direction = renamed.pop(f"{_POSITION_CONV}.weight_v")
    length = direction.double().square().sum((0, 1), keepdim=True).sqrt()
    weight = (direction.double() * (gain.double() / length)).to(direction.dtype)
    return renamed | {f"{_POSITION_CONV}.weight": weight}


def expected_speech_encoder_keys(config: SpeechEncoderConfig) -> dict[str, tuple[int, ...]]:
    """Older published name, without prefix -> shape of every parameter that is used."""
    shapes = {name: tuple(value.shape) for name, value in build_speech_encoder(config).state_dict().items()}
    weight = shapes.pop(f"{_POSITION_CONV}.weight")
    return shapes | {f"{_POSITION_CONV}.weight_g": (1, 1, weight[-1]), f"{_POSITION_CONV}.weight_v": weight}


def interpolate_rows(features: Tensor, frames: int) -> Tensor:
    """`features` [1, C, T] at `frames` points in time from the first to the last, linearly: [1, C, frames].

    Where the points fall on rows, as 200 do on 399, those rows are taken as they are, which is the same and a view.
    """
    rows = features.shape[-1]
    if frames > 1 and (rows - 1) % (frames - 1) == 0:
        return features[..., :: (rows - 1) // (frames - 1)]
    return nn.functional.interpolate(features, size=frames, mode="linear", align_corners=True)


@torch.no_grad()
def encode_speech(model: SpeechEncoder, waveform: Tensor, frames: int) -> Tensor:
    """Speech features [frames, layers, C] float32 of `waveform` [n] at 16 kHz, float32, on the model's device.

    `frames` is n / 16000 * 25, rounded down. Layer 0 is the output of the transformer's first layer, not its input.
    """
    return model(waveform, frames)


def audio_window(embedding: Tensor, start: int = -1, end: int = -1) -> Tensor:
    """Every frame from `start` to `end` with two neighbours on each side: [1, end - start, 5, layers, C].

    `embedding` is [N, layers, C]. Neighbours before the first row of all repeat that, and those after the window repeat
    its last one. A bound of -1 means all rows.
    """
    if start < 0 or end < 0:
        start, end = 0, len(embedding)
    rows = _padded_rows(embedding, start, end, end)
    return rows.unfold(0, WINDOW, 1).movedim(-1, 1)[None]


def audio_slices(embedding: Tensor, first: int, frames: int, *, end: int | None = None) -> tuple[Tensor, Tensor]:
    """What the audio projection reads of the window of `frames` = 4 k + 1 frames from row `first` of `embedding`.

    For the first latent frame [1, 5, layers, C], for the k later ones [k, 8, layers, C]: overlapping views of one small
    tensor. They are the slots that the projection takes from `audio_window`, which holds most rows five times.
    Neighbours after the window repeat its last row, or where `end` is given, are rows as long as they lie before that.
    """
    if frames % LATENT_STRIDE != 1:
        raise ValueError(f"{frames} frames are no whole number of latent frames")
    rows = _padded_rows(embedding, first, first + frames, first + frames if end is None else end)
    # Slots 0 1 2, 2, 2, 2 3 4 of four neighbouring windows are eight rows in a row.
    shape = (frames // LATENT_STRIDE, LATENT_STRIDE + WINDOW - 1, *rows.shape[1:])
    later = rows.as_strided(shape, (LATENT_STRIDE * rows.stride(0), *rows.stride()), rows.stride(0))
    return rows[None, :WINDOW], later


def _padded_rows(embedding: Tensor, start: int, stop: int, end: int) -> Tensor:
    """Rows `start` - 2 to `stop` + 1, each clamped to 0 ... `end` - 1: [stop - start + 4, layers, C]."""
    indices = torch.arange(start - WINDOW // 2, stop + WINDOW // 2, device=embedding.device).clamp(0, end - 1)
    return embedding.index_select(0, indices)


def _transformers_config(config: SpeechEncoderConfig) -> Any:
    from transformers import Wav2Vec2Config

    values = {field.name: getattr(config, field.name) for field in fields(config) if field.name != "do_normalize"}
    return Wav2Vec2Config(
        **values,
        mask_time_prob=0.0,
        mask_feature_prob=0.0,
        do_stable_layer_norm=False,
        add_adapter=False,
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFilesError(
            f"The speech encoder's {path.name} cannot be read in {path.parent}.",
            code="model_files.speech_encoder",
            hint="Download the model again.",
            detail=repr(error),
        ) from error
