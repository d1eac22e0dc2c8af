"""A directory in FlashTalk's layout, with tiny files."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest


def _tensors(path: Path, **shapes: tuple[int, ...]) -> None:
    numpy = pytest.importorskip("safetensors.numpy", reason="safetensors is in the extra gpu")
    import numpy as np

    numpy.save_file({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, path)


def _archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", bytes(300))


def _speech(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "wav2vec2"}')
    (folder / "preprocessor_config.json").write_text("{}")
    _archive(folder / "pytorch_model.bin")


@pytest.fixture
def speech_encoder(tmp_path) -> Path:
    """A directory in chinese-wav2vec2-base's layout, under another name."""
    _speech(tmp_path / "elsewhere" / "hearing")
    return tmp_path / "elsewhere" / "hearing"


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """A complete checkpoint of two shards, with the speech encoder beside it."""
    folder = tmp_path / "models" / "SoulX-FlashTalk-14B"
    (folder / "google" / "umt5-xxl").mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "i2v", "dim": 8}')
    (folder / "google" / "umt5-xxl" / "tokenizer.json").write_text("{}")
    first, second = (f"diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2))
    _tensors(folder / first, head=(2, 3), tail=(4,))
    _tensors(folder / second, middle=(5, 5))
    index = {"weight_map": {"head": first, "tail": first, "middle": second}}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    for name in (
        "models_t5_umt5-xxl-enc-bf16.pth",
        "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
        "Wan2.1_VAE.pth",
    ):
        _archive(folder / name)
    _speech(tmp_path / "models" / "chinese-wav2vec2-base")
    return folder
