"""The speech encoder against transformers' own model, its names against the published ones, and the audio windows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from engine.errors import ModelFilesError  # noqa: E402
from engine.generators.flashtalk.speech_encoder import (  # noqa: E402
    SpeechEncoder,
    SpeechEncoderConfig,
    audio_slices,
    audio_window,
    build_speech_encoder,
    encode_speech,
    expected_speech_encoder_keys,
    interpolate_rows,
    is_unused_speech_encoder_key,
    rename_speech_encoder,
    speech_encoder_key,
)

TINY = SpeechEncoderConfig(
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=48,
    conv_dim=(16,) * 7,
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=4,
)
SAMPLES = 10_000


def _published(config: SpeechEncoderConfig) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(6)
    shapes = expected_speech_encoder_keys(config).items()
    state = {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes}
    # Convolutions without a bias shrink small numbers more and more, down to where float32 sees nothing else.
    return {name: value * (4 if "conv_layers" in name else 1) for name, value in state.items()}


def _loaded(config: SpeechEncoderConfig, state: dict[str, torch.Tensor]) -> SpeechEncoder:
    model = build_speech_encoder(config)
    model.load_state_dict(rename_speech_encoder(state), strict=True, assign=True)
    return model


def _sound(samples: int = SAMPLES) -> torch.Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(7)) * 0.1 + 0.02


def _oracle(config: SpeechEncoderConfig, state: dict[str, torch.Tensor]) -> torch.nn.Module:
    settings = transformers.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48, conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, conv_bias=False, feat_extract_norm="group",
        apply_spec_augment=False, mask_time_prob=0.0,
    )  # fmt: skip
    model = transformers.Wav2Vec2Model(settings).eval()
    newer = {
        "encoder.pos_conv_embed.conv.weight_g": "encoder.pos_conv_embed.conv.parametrizations.weight.original0",
        "encoder.pos_conv_embed.conv.weight_v": "encoder.pos_conv_embed.conv.parametrizations.weight.original1",
    }
    model.load_state_dict({newer.get(name, name): value for name, value in state.items()}, strict=True)
    return model


def test_real_size_names_and_shapes_are_the_published_ones(request: pytest.FixtureRequest) -> None:
    path = request.config.rootpath / "tests/data/golden/keys_14b.json"
    published = json.loads(path.read_text(encoding="utf-8"))["keys"]["wav2vec2_base"]
    used = {speech_encoder_key(n): tuple(s) for n, s in published.items() if not is_unused_speech_encoder_key(n)}
    assert expected_speech_encoder_keys(SpeechEncoderConfig()) == used
    assert [name for name in published if is_unused_speech_encoder_key(name)] == ["masked_spec_embed"]


def test_without_interpolation_the_features_are_transformers_hidden_states() -> None:
    state, sound = _published(TINY), _sound()
    oracle = _oracle(TINY, state)
    with torch.no_grad():
        states = oracle(sound[None], output_hidden_states=True).hidden_states
    rows = states[0].shape[1]
    wanted = torch.stack(states[1:], 2)[0]
    assert wanted.shape == (rows, 3, 32)
    features = encode_speech(_loaded(TINY, state), sound, rows)
    assert features.dtype == torch.float32 and not features.requires_grad
    torch.testing.assert_close(features, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frames", [15, 16, 11])
def test_interpolation_comes_before_the_transformer(frames: int) -> None:
    """With 31 rows of convolutions: every second, between rows, every third."""
    state, sound = _published(TINY), _sound()
    oracle = _oracle(TINY, state)
    with torch.no_grad():
        rows = oracle.feature_extractor(sound[None])
        assert rows.shape[-1] == 31
        points = torch.linspace(0, 30, frames, dtype=torch.float64)
        low, part = points.floor().long(), (points - points.floor()).float()
        between = rows[..., low] * (1 - part) + rows[..., (low + 1).clamp(max=30)] * part
        projected = oracle.feature_projection(between.transpose(1, 2))[0]
        collected = []
        for layer in oracle.encoder.layers:
            layer.register_forward_hook(lambda _, __, output: collected.append(output))
        oracle.encoder(projected)
    wanted = torch.stack([(item[0] if isinstance(item, tuple) else item)[0] for item in collected], 1)
    torch.testing.assert_close(encode_speech(_loaded(TINY, state), sound, frames), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("rows", "frames"), [(399, 200), (31, 16), (31, 11), (31, 31), (31, 20), (7, 1), (5, 9)])
def test_taking_rows_is_interpolation(rows: int, frames: int) -> None:
    features = torch.randn(1, 5, rows, generator=torch.Generator().manual_seed(8))
    wanted = torch.nn.functional.interpolate(features, size=frames, mode="linear", align_corners=True)
    taken = interpolate_rows(features, frames)
    torch.testing.assert_close(taken, wanted, rtol=0, atol=0)
    view = taken.untyped_storage().data_ptr() == features.untyped_storage().data_ptr()
    assert view == (frames > 1 and (rows - 1) % (frames - 1) == 0)


def test_normalisation_is_that_of_transformers_feature_extractor() -> None:
    # So quiet that the normalisation after the first convolution does not do the same.
    state, sound = _published(TINY), _sound() * 1e-3
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    normalised = extractor(sound.numpy(), sampling_rate=16_000, return_tensors="pt").input_values[0]
    plain = encode_speech(_loaded(TINY, state), normalised, 15)
    normalising = SpeechEncoderConfig(**{name: getattr(TINY, name) for name in TINY.__slots__} | {"do_normalize": True})
    torch.testing.assert_close(encode_speech(_loaded(normalising, state), sound, 15), plain, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(encode_speech(_loaded(TINY, state), sound, 15), plain, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("prefix", ["", "wav2vec2."])
@pytest.mark.parametrize("newer", [False, True])
def test_all_published_spellings_load_the_same(prefix: str, newer: bool) -> None:
    state = _published(TINY)
    conv = "encoder.pos_conv_embed.conv."
    spelt = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    file = {
        prefix + (conv + spelt.get(name.removeprefix(conv), name.removeprefix(conv)) if newer else name)
        if name.startswith(conv)
        else prefix + name: value
        for name, value in state.items()
    }
    file |= {f"{prefix}masked_spec_embed": torch.zeros(32), "quantizer.codevectors": torch.zeros(1, 4, 2)}
    file |= {"project_hid.weight": torch.zeros(2, 2), "project_q.bias": torch.zeros(2)}
    wanted, got = rename_speech_encoder(state), rename_speech_encoder(file)
    assert wanted.keys() == got.keys()
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    assert {speech_encoder_key(name) for name in file if not is_unused_speech_encoder_key(name)} == state.keys()


def test_nothing_stays_on_the_meta_device_and_silence_is_finite() -> None:
    model = _loaded(TINY, _published(TINY))
    assert not [name for name, value in [*model.named_parameters(), *model.named_buffers()] if value.is_meta]
    assert not model.training
    assert encode_speech(model.to("cpu"), torch.zeros(SAMPLES), 15).isfinite().all()


def _write(folder: Path, config: dict, preprocessor: dict | None) -> Path:
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor), encoding="utf-8")
    return folder


def test_configuration_is_read_from_the_directory(tmp_path: Path) -> None:
    config = {
        "model_type": "wav2vec2",
        "hidden_size": 32,
        "conv_dim": [16] * 7,
        "architectures": ["x"],
        "vocab_size": 9,
    }
    read = SpeechEncoderConfig.from_directory(_write(tmp_path, config, {"do_normalize": False, "sampling_rate": 16000}))
    assert (read.hidden_size, read.conv_dim, read.do_normalize) == (32, (16,) * 7, False)
    assert read.num_hidden_layers == 12


@pytest.mark.parametrize("preprocessor", [None, {}, {"do_normalize": True}])
def test_sound_is_normalised_unless_the_directory_says_otherwise(tmp_path: Path, preprocessor: dict | None) -> None:
    assert SpeechEncoderConfig.from_directory(_write(tmp_path, {}, preprocessor)).do_normalize


@pytest.mark.parametrize(
    ("config", "preprocessor", "named"),
    [
        ({"do_stable_layer_norm": True}, None, "do_stable_layer_norm"),
        ({"add_adapter": True}, None, "add_adapter"),
        ({"model_type": "hubert"}, None, "model_type"),
        ({}, {"sampling_rate": 8000}, "sampling_rate"),
    ],
)
def test_other_encoders_are_refused(tmp_path: Path, config: dict, preprocessor: dict | None, named: str) -> None:
    with pytest.raises(ModelFilesError, match=named):
        SpeechEncoderConfig.from_directory(_write(tmp_path, config, preprocessor))


def test_a_directory_without_configuration_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match=r"config\.json"):
        SpeechEncoderConfig.from_directory(tmp_path)


def _window_by_hand(embedding: torch.Tensor, start: int, end: int) -> torch.Tensor:
    return torch.stack(
        [torch.stack([embedding[min(max(f + o, 0), end - 1)] for o in range(-2, 3)]) for f in range(start, end)]
    )[None]


@pytest.mark.parametrize("bounds", [(0, 23), (14, 23), (4, 13), (0, 9), (1, 2)])
def test_window_repeats_the_first_row_of_all_and_the_last_of_the_window(bounds: tuple[int, int]) -> None:
    embedding = torch.randn(23, 4, 3)
    assert torch.equal(audio_window(embedding, *bounds), _window_by_hand(embedding, *bounds))
    assert torch.equal(audio_window(embedding), _window_by_hand(embedding, 0, 23))


@pytest.mark.parametrize(("first", "frames"), [(0, 33), (7, 33), (1, 9), (31, 9), (5, 1)])
def test_slices_are_the_slots_of_the_window(first: int, frames: int) -> None:
    embedding = torch.randn(40, 4, 3)
    window = audio_window(embedding, first, first + frames)[0]
    head, later = audio_slices(embedding, first, frames)
    assert torch.equal(head, window[:1])
    groups = window[1:].unflatten(0, (-1, 4))
    slots = [groups[:, 0, :3], groups[:, 1, 2:3], groups[:, 2, 2:3], groups[:, 3, 2:]]
    assert torch.equal(later, torch.cat(slots, 1))
    assert head.untyped_storage().data_ptr() == later.untyped_storage().data_ptr()
    if len(later) > 1:
        # Flattened for the projection without a copy.
        assert later.flatten(1).data_ptr() == later.data_ptr()


@pytest.mark.parametrize("first", [0, 12, 30, 31])
def test_slices_of_a_whole_recording_see_past_the_window(first: int) -> None:
    embedding = torch.randn(40, 4, 3)
    window = audio_window(embedding)[0, first : first + 9]
    head, later = audio_slices(embedding, first, 9, end=40)
    assert torch.equal(head, window[:1])
    assert torch.equal(later[-1], torch.cat([window[5, :3], window[6, 2:3], window[7, 2:3], window[8, 2:]]))


def test_frames_that_fill_no_latent_frame_are_refused() -> None:
    with pytest.raises(ValueError, match="32 frames"):
        audio_slices(torch.zeros(40, 4, 3), 0, 32)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_nothing_waits_for_the_gpu() -> None:
    state, sound = _published(TINY), _sound()
    model, sound_there = _loaded(TINY, state).cuda(), sound.cuda()
    features = encode_speech(model, sound_there, 15)
    torch.cuda.set_sync_debug_mode("error")
    try:
        audio_slices(encode_speech(model, sound_there, 15), 2, 13)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(features.cpu(), encode_speech(_loaded(TINY, state), sound, 15), rtol=2e-2, atol=2e-2)
