"""Text, image and speech encoders, and what comes before them, against the reference."""

import json

import numpy as np
import pytest
import torch

from engine.generators.flashtalk.image_encoder import (
    ImageEncoderConfig,
    build_image_encoder,
    encode_image,
    preprocess_image,
    rename_image_encoder,
)
from engine.generators.flashtalk.loudness import integrated_loudness, normalize_loudness
from engine.generators.flashtalk.portrait_tensor import cover_and_crop, to_unit_range
from engine.generators.flashtalk.speech_encoder import (
    SpeechEncoderConfig,
    audio_slices,
    audio_window,
    build_speech_encoder,
    encode_speech,
    rename_speech_encoder,
)
from engine.generators.flashtalk.text_encoder import (
    TextEncoderConfig,
    build_text_encoder,
    clean_prompt,
    encode_text,
    rename_text_encoder,
)


def text_encoder_of(case):
    weights = case.weights()
    model = build_text_encoder(TextEncoderConfig.of(weights))
    model.load_state_dict(rename_text_encoder(weights), strict=True, assign=True)
    return model


def image_encoder_of(case):
    weights, heads = case.weights(), case.meta["config"]["vision_heads"]
    config = ImageEncoderConfig.of(weights, num_heads=heads)
    model = build_image_encoder(config)
    model.load_state_dict(rename_image_encoder(weights, config), strict=True, assign=True)
    return model


def speech_encoder_of(case):
    model = build_speech_encoder(SpeechEncoderConfig.of(case.meta["config"]))
    model.load_state_dict(rename_speech_encoder(case.weights()), strict=True, assign=True)
    return model


def test_text_features(t5_case):
    tensors = t5_case.tensors
    features = encode_text(text_encoder_of(t5_case), tensors["in.ids"], tensors["in.mask"])
    t5_case.check(features, "out.context_trimmed")


def test_image_features(clip_case):
    tensors = clip_case.tensors
    image = (tensors["in.image_uint8"].float() / 255 - 0.5) * 2
    image = image.permute(2, 0, 1)[None, :, None]
    if "out.preprocessed_stride7" in tensors:
        clip_case.check(preprocess_image(image)[..., ::7, ::7], "out.preprocessed_stride7")
    features = encode_image(image_encoder_of(clip_case), image)
    clip_case.check(features, "out.features")
    if "out.all_blocks_for_contrast" in tensors:
        wrong = tensors["out.all_blocks_for_contrast"]
        assert (features - wrong).abs().max() > 0.01 * wrong.abs().max(), "the last block must not have been run"


def test_speech_features(wav2vec_case):
    tensors = wav2vec_case.tensors
    loud = torch.from_numpy(np.asarray(normalize_loudness(tensors["in.waveform"].numpy()), np.float32))
    wav2vec_case.check(loud, "out.loudness_normalized")
    model = speech_encoder_of(wav2vec_case)
    seen = {}
    model.feature_extractor.register_forward_hook(lambda _m, _i, out: seen.__setitem__("conv_features", out))
    model.feature_projection.register_forward_hook(lambda _m, _i, out: seen.__setitem__("projected", out[0]))
    model.encoder.pos_conv_embed.register_forward_hook(lambda _m, _i, out: seen.__setitem__("pos_conv", out))
    features = encode_speech(model, loud, wav2vec_case.meta["seq_len"])
    wav2vec_case.check(features, "out.audio_emb")
    for name, value in seen.items():
        if f"out.{name}" in tensors:
            wav2vec_case.check(value, f"out.{name}")


def test_loudness(loudness_case):
    tensors, measured = loudness_case.tensors, loudness_case.meta["measured_[LUFS, output dtype]"]
    assert measured
    for name, (lufs, _dtype) in measured.items():
        samples = tensors[f"in.{name}"].numpy()
        assert integrated_loudness(samples) == pytest.approx(float(lufs), abs=1e-6)
        got = torch.from_numpy(np.asarray(normalize_loudness(samples)))
        loudness_case.check(got.to(tensors[f"out.{name}"].dtype), f"out.{name}")


def test_windows_and_the_slices_that_stand_for_them(audio_window_case):
    embedding = audio_window_case.tensors["in.embedding"]
    for name, bounds in audio_window_case.meta["modes"].items():
        start, end = bounds["audio_start_idx"], bounds["audio_end_idx"]
        windows = audio_window(embedding, start, end)
        audio_window_case.check(windows, f"out.{name}")
        if start < 0 or (end - start) % 4 != 1:
            continue
        first, later = audio_slices(embedding, start, end - start)
        four = windows[0, 1:].unflatten(0, (-1, 4))
        expected = torch.cat((four[:, 0, :3], four[:, 1, 2:3], four[:, 2, 2:3], four[:, 3, 2:]), dim=1)
        assert torch.equal(first, windows[0, :1]) and torch.equal(later, expected)


def test_prompt_cleaning(text_misc_case):
    cleaning = text_misc_case.meta["prompt_cleaning"]
    assert [clean_prompt(text) for text in cleaning["in"]] == cleaning["out"]


def test_relative_positions(text_misc_case):
    """Each offset's bucket, read off the bias that an encoder with a telling table adds."""
    bucket = text_misc_case.meta["t5_bucket"]
    start, expected = bucket["relative_position_start"], bucket["bucket"]
    assert len(expected) == 1 - 2 * start
    model = build_text_encoder(
        TextEncoderConfig(vocab_size=8, dim=8, dim_attn=8, dim_ffn=8, num_heads=1, num_layers=1), device="cpu"
    )
    attention = model.block[0].layer[0].SelfAttention
    attention.relative_attention_bias.weight.copy_(torch.arange(32.0)[:, None])
    length = -start + 1
    bias = attention.compute_bias(length, length)[0, 0]
    got = [
        int(bias[0 if offset >= 0 else -offset, offset if offset >= 0 else 0]) for offset in range(start, -start + 1)
    ]
    assert got == expected


def test_resize_and_crop(resize_center_case):
    tensors = resize_center_case.tensors
    for name, sizes in resize_center_case.meta["cases"].items():
        got = cover_and_crop(tensors[f"in.{name}"].numpy(), *sizes["target_hw"])
        expected = tensors[f"out.{name}"][0, :, 0].permute(1, 2, 0)
        assert torch.equal(torch.from_numpy(got), expected), name
        assert to_unit_range(got).shape == (1, 3, 1, *sizes["target_hw"])


def test_every_case_has_a_test(every_case):
    unknown = [name for name, kind in every_case.items() if kind is None]
    assert not unknown, f"no test knows these cases: {json.dumps(unknown)}"
    assert every_case
