"""The image encoder against transformers' whole model and torch's own layers, and its names against the published."""

from __future__ import annotations

import json

import cv2
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch import nn  # noqa: E402

from engine.errors import ModelFilesError  # noqa: E402
from engine.generators.flashtalk.image_encoder import (  # noqa: E402
    ImageEncoderConfig,
    build_image_encoder,
    encode_image,
    expected_image_encoder_keys,
    is_unused_image_encoder_key,
    preprocess_image,
    rename_image_encoder,
)

TINY = ImageEncoderConfig(image_size=56, patch_size=14, dim=32, dim_mlp=96, num_heads=4, num_layers=4)


def _published(config: ImageEncoderConfig) -> dict[str, torch.Tensor]:
    """A whole published file at small size: also the last block, norm, head and text tower."""
    generator = torch.Generator().manual_seed(4)
    shapes = expected_image_encoder_keys(config)
    last = f"visual.transformer.{config.num_layers - 1}."
    shapes |= {n.replace("visual.transformer.0.", last): s for n, s in shapes.items() if ".transformer.0." in n}
    shapes |= {"visual.post_norm.weight": (32,), "visual.post_norm.bias": (32,), "visual.head": (32, 8)}
    shapes |= {"log_scale": (), "textual.blocks.0.attn.q.weight": (4, 4), "textual.norm.bias": (4,)}
    return {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}


def _loaded(config: ImageEncoderConfig, state: dict[str, torch.Tensor]) -> nn.Module:
    model = build_image_encoder(config)
    model.load_state_dict(rename_image_encoder(state, config), strict=True, assign=True)
    return model


def _image() -> torch.Tensor:
    return torch.rand(1, 3, 1, 90, 70, generator=torch.Generator().manual_seed(5)) * 2 - 1


def test_used_and_unused_names_are_the_published_file(request: pytest.FixtureRequest) -> None:
    path = request.config.rootpath / "tests/data/golden/keys_14b.json"
    published = json.loads(path.read_text(encoding="utf-8"))["keys"]["clip"]
    config = ImageEncoderConfig()
    used = {name: tuple(shape) for name, shape in published.items() if not is_unused_image_encoder_key(name, config)}
    assert expected_image_encoder_keys(config) == used
    unused = {name for name in published if name not in used}
    assert len([name for name in unused if name.startswith("visual.transformer.31.")]) == 12
    towers = {name for name in unused if not name.startswith(("textual.", "visual.transformer.31."))}
    assert towers == {"log_scale", "visual.head", "visual.post_norm.weight", "visual.post_norm.bias"}


def _torch_block(state: dict[str, torch.Tensor], block: int) -> nn.TransformerEncoderLayer:
    names = {
        "self_attn.in_proj_": "attn.to_qkv.",
        "self_attn.out_proj.": "attn.proj.",
        "linear1.": "mlp.0.",
        "linear2.": "mlp.2.",
        "norm1.": "norm1.",
        "norm2.": "norm2.",
    }
    layer = nn.TransformerEncoderLayer(
        TINY.dim, TINY.num_heads, TINY.dim_mlp, 0.0, "gelu", norm_first=True, batch_first=True, dtype=torch.float64
    )
    weights = {
        ours + kind: state[f"visual.transformer.{block}.{name}{kind}"]
        for ours, name in names.items()
        for kind in ("weight", "bias")
    }
    layer.load_state_dict(weights, strict=True)
    return layer.eval()


def test_features_are_those_of_torchs_own_transformer_layers() -> None:
    state = _published(TINY)
    x = nn.functional.conv2d(preprocess_image(_image(), 56), state["visual.patch_embedding.weight"], stride=14)
    x = torch.cat([state["visual.cls_embedding"], x.flatten(2).transpose(1, 2)], 1) + state["visual.pos_embedding"]
    x = nn.functional.layer_norm(x, (32,), state["visual.pre_norm.weight"], state["visual.pre_norm.bias"]).double()
    with torch.no_grad():
        for block in range(TINY.num_layers - 1):
            x = _torch_block(state, block)(x)
    features = encode_image(_loaded(TINY, state), _image())
    assert features.shape == (1, 17, 32) and not features.requires_grad
    torch.testing.assert_close(features.double(), x, rtol=1e-4, atol=1e-4)


def test_features_are_the_penultimate_hidden_states_of_transformers_whole_model() -> None:
    state = _published(TINY)
    settings = transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4, image_size=56, patch_size=14,
        hidden_act="gelu",
    )  # fmt: skip
    oracle = transformers.CLIPVisionModel(settings).eval()
    tower = getattr(oracle, "vision_model", oracle)
    whole = ImageEncoderConfig(image_size=56, dim=32, dim_mlp=96, num_heads=4, num_layers=5)
    used = {name: value for name, value in state.items() if name in expected_image_encoder_keys(whole)}
    loaded = tower.load_state_dict(rename_image_encoder(used, whole), strict=False)
    assert set(loaded.missing_keys) <= {"post_layernorm.weight", "post_layernorm.bias", "embeddings.position_ids"}
    with torch.no_grad():
        states = oracle(pixel_values=preprocess_image(_image(), 56), output_hidden_states=True).hidden_states
    assert len(states) == 5
    torch.testing.assert_close(encode_image(_loaded(TINY, state), _image()), states[-2], rtol=1e-5, atol=1e-5)


def test_picture_is_squashed_by_bicubic_interpolation_and_standardised() -> None:
    image = _image()
    wanted = cv2.resize(image[0, :, 0].permute(1, 2, 0).numpy(), (224, 224), interpolation=cv2.INTER_CUBIC)
    wanted = (wanted * 0.5 + 0.5 - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]
    pixels = preprocess_image(image)
    assert pixels.shape == (1, 3, 224, 224) and pixels.dtype == torch.float32
    torch.testing.assert_close(pixels[0].permute(1, 2, 0).double(), torch.from_numpy(wanted), rtol=0, atol=2e-4)
    torch.testing.assert_close(preprocess_image(image[:, :, 0]), pixels, rtol=0, atol=0)


def test_nothing_stays_on_the_meta_device_and_the_model_can_be_moved() -> None:
    model = _loaded(TINY, _published(TINY))
    assert not [name for name, value in [*model.named_parameters(), *model.named_buffers()] if value.is_meta]
    wanted = encode_image(model, _image())
    torch.testing.assert_close(encode_image(model.to("cpu", torch.float64), _image()).float(), wanted)
    assert model.embeddings.position_ids.tolist() == [list(range(17))]


def test_a_model_built_on_a_device_works_without_the_meta_one() -> None:
    state = _published(TINY)
    model = build_image_encoder(TINY, device="cpu")
    model.load_state_dict(rename_image_encoder(state, TINY), strict=True)
    torch.testing.assert_close(encode_image(model, _image()), encode_image(_loaded(TINY, state), _image()))


def test_unused_weights_have_no_effect_and_used_ones_are_views() -> None:
    state = _published(TINY)
    renamed = rename_image_encoder(state, TINY)
    qkv = state["visual.transformer.1.attn.to_qkv.weight"]
    assert renamed["encoder.layers.1.self_attn.k_proj.weight"].data_ptr() == qkv[32:].data_ptr()
    used = {name: value for name, value in state.items() if not is_unused_image_encoder_key(name, TINY)}
    assert rename_image_encoder(used, TINY).keys() == renamed.keys()


@pytest.mark.parametrize("name", ["visual.transformer.4.norm1.weight", "visual.head2", "logit_scale", "text.norm.bias"])
def test_other_names_are_neither_used_nor_ignored(name: str) -> None:
    assert not is_unused_image_encoder_key(name, TINY)
    with pytest.raises(KeyError):
        rename_image_encoder({name: torch.zeros(1)}, TINY)


def test_sizes_are_read_from_the_weights() -> None:
    assert ImageEncoderConfig.of(_published(TINY), num_heads=4) == TINY
    with pytest.raises(ModelFilesError):
        ImageEncoderConfig.of({"visual.patch_embedding.weight": torch.zeros(32, 3, 14, 14)})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_weights_assigned_on_a_gpu_need_no_further_move() -> None:
    state = {name: value.cuda() for name, value in _published(TINY).items()}
    features = encode_image(_loaded(TINY, state), _image())
    wanted = encode_image(_loaded(TINY, _published(TINY)), _image())
    torch.testing.assert_close(features.cpu(), wanted, rtol=1e-3, atol=1e-3)
