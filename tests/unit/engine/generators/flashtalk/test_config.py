"""Sizes of the model and of a stream, held against the published numbers."""

from __future__ import annotations

import json

import pytest

from engine.errors import ModelFilesError, UsageError
from engine.generators.flashtalk.config import DiTConfig, StreamShape, latent_frames

PUBLISHED = {
    "model_type": "i2v", "dim": 5120, "ffn_dim": 13824, "freq_dim": 256, "num_heads": 40, "num_layers": 40,
    "in_dim": 36, "out_dim": 16, "text_len": 512, "eps": 1e-6, "audio_window": 5, "intermediate_dim": 512,
    "output_dim": 768, "context_tokens": 32, "vae_scale": 4, "norm_input_visual": True, "norm_output_audio": True,
    "weight_init": False, "_class_name": "WanModel", "_diffusers_version": "0.30.0", "enable_sp": True,
}  # fmt: skip


def test_the_published_configuration_is_the_default():
    config = DiTConfig.from_dict(PUBLISHED)
    assert config == DiTConfig() and config.head_dim == 128 and config.slots_per_latent == 8


def test_real_size_has_the_published_number_of_parameters():
    """18,882,046,784 in 1633 tensors, of which 14.45 G stay on the device (specification, 2.1 and 9.1)."""
    torch = pytest.importorskip("torch")
    from engine.generators.flashtalk.transformer import DiT, is_set_up_only

    with torch.device("meta"):
        state = DiT(DiTConfig()).state_dict()
    sizes = {name: tensor.numel() for name, tensor in state.items()}
    assert len(sizes) == 1633 and sum(sizes.values()) == 18_882_046_784
    resident = sum(size for name, size in sizes.items() if not is_set_up_only(name))
    assert resident / 1e9 == pytest.approx(14.45, abs=0.005)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model_type": "t2v"}, "model_files.wrong_type"),
        ({"num_heads": 41}, "model_files.config"),
        ({"num_heads": 1024}, "model_files.config"),  # heads of width 5 cannot turn in pairs
        ({"in_dim": 48}, "model_files.config"),
        ({"audio_window": 7}, "model_files.config"),
        ({"vae_scale": 8}, "model_files.config"),
        ({"dim": "large"}, "model_files.config"),
        ({"num_heads": 0}, "model_files.config"),
        ({"num_layers": "40"}, "model_files.config"),
        ({"text_len": -1}, "model_files.config"),
        ({"ffn_dim": None}, "model_files.config"),
        ({"ffn_dim": 13824.0}, "model_files.config"),
        ({"eps": float("nan")}, "model_files.config"),
    ],
)
def test_another_model_is_refused(changes, code):
    with pytest.raises(ModelFilesError) as raised:
        DiTConfig.from_dict(PUBLISHED | changes)
    assert raised.value.code == code and raised.value.hint


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", '"i2v"', None, b"\xff\xfe\x00"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path, text):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModelFilesError) as raised:
        DiTConfig.from_file(path)
    assert raised.value.code == "model_files.config" and str(path) in raised.value.message


def test_a_configuration_file_is_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED | {"num_layers": 3}))
    assert DiTConfig.from_file(tmp_path / "config.json") == DiTConfig(num_layers=3)


def test_the_models_own_shape_has_the_published_numbers():
    shape = StreamShape()
    assert (shape.height, shape.width, shape.frames, shape.fps) == (768, 448, 33, 25)
    assert shape.new_frames == 28 and shape.chunk_samples == 17_920
    assert shape.history_samples == 128_000 and shape.history_frames == 200
    assert shape.latent == (16, 9, 96, 56) and shape.grid == (9, 48, 28) and shape.tokens == 12_096


@pytest.mark.parametrize(
    ("height", "width", "frames", "tokens"),
    [(720, 416, 33, 10_530), (704, 416, 29, 9_152), (640, 384, 33, 8_640), (512, 512, 33, 9_216)],
)  # fmt: skip
def test_token_counts_are_those_of_the_cost_tables(height, width, frames, tokens):
    assert StreamShape(height=height, width=width, frames=frames).tokens == tokens


@pytest.mark.parametrize("frames", range(1, 42))
def test_latent_frames_are_counted_as_the_video_is_grouped(frames):
    groups = 1 + len(range(1, frames, 4))
    if frames % 4 == 1:
        assert latent_frames(frames) == groups


@pytest.mark.parametrize(
    "values",
    [
        {"height": 100}, {"width": 100}, {"height": 760}, {"height": 0}, {"width": -16}, {"frames": 32},
        {"motion_frames": 4}, {"motion_frames": 33}, {"motion_frames": 37}, {"frames": 201}, {"motion_frames": -3},
    ],
)  # fmt: skip
def test_impossible_shapes_are_refused(values):
    with pytest.raises(UsageError):
        StreamShape(**values)


def test_a_refused_size_says_which_would_do():
    with pytest.raises(UsageError) as raised:
        StreamShape(height=100, width=64)
    assert "64x100" in raised.value.message and "16" in raised.value.hint
