"""The real-size modules have exactly the published names and shapes."""

import math

import torch

from engine.generators.flashtalk.config import DiTConfig
from engine.generators.flashtalk.image_encoder import (
    ImageEncoderConfig,
    expected_image_encoder_keys,
    is_unused_image_encoder_key,
)
from engine.generators.flashtalk.speech_encoder import (
    SpeechEncoderConfig,
    expected_speech_encoder_keys,
    is_unused_speech_encoder_key,
    speech_encoder_key,
)
from engine.generators.flashtalk.text_encoder import TextEncoderConfig, expected_text_encoder_keys
from engine.generators.flashtalk.transformer import DiT, is_set_up_only
from engine.generators.flashtalk.vae import Vae
from engine.generators.flashtalk.vae_coders import VaeConfig


def shapes_of(module) -> dict:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def published(keys_case, part: str) -> dict:
    return {name: tuple(shape) for name, shape in keys_case.meta["keys"][part].items()}


def test_transformer(keys_case):
    with torch.device("meta"):
        dit = DiT(DiTConfig.from_dict(keys_case.meta["dit_config"]))
    assert shapes_of(dit) == published(keys_case, "dit")
    total = sum(parameter.numel() for parameter in dit.parameters())
    assert total == keys_case.meta["parameter_counts"]["dit"]
    resident = sum(parameter.numel() for name, parameter in dit.named_parameters() if not is_set_up_only(name))
    assert 14.40e9 < resident < 14.46e9, "what the specification keeps on the device while streaming"


def test_vae(keys_case):
    with torch.device("meta"):
        vae = Vae(VaeConfig())
    assert shapes_of(vae) == published(keys_case, "vae")
    assert sum(math.prod(shape) for shape in shapes_of(vae).values()) == keys_case.meta["parameter_counts"]["vae"]


def test_text_encoder(keys_case):
    assert expected_text_encoder_keys(TextEncoderConfig()) == published(keys_case, "t5")


def test_image_encoder(keys_case):
    """All that is used, and every other name is known to be unused."""
    names, config = published(keys_case, "clip"), ImageEncoderConfig()
    used = {name: shape for name, shape in names.items() if not is_unused_image_encoder_key(name, config)}
    assert used == expected_image_encoder_keys(config)


def test_speech_encoder(keys_case):
    names = published(keys_case, "wav2vec2_base")
    used = {speech_encoder_key(name): shape for name, shape in names.items() if not is_unused_speech_encoder_key(name)}
    assert used == expected_speech_encoder_keys(SpeechEncoderConfig())
