"""Which files of a repository are wanted."""

from __future__ import annotations

import pytest

from engine.errors import UsageError
from engine.model_store.catalog import CATALOGUE, CHINESE_WAV2VEC2, FLASHTALK, entry_named
from engine.model_store.manifest import check_path, is_commit

FLASHTALK_FILES = [
    ".gitattributes",
    "LICENSE",
    "README.md",
    "assets/LICENSE",
    "config.json",
    "deeper/config.json",
    "deeper/diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model-00001-of-00002.safetensors",
    "diffusion_pytorch_model-00002-of-00002.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "google/umt5-xxl/spiece.model",
    "google/umt5-xxl/tokenizer.json",
    "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
    "models_t5_umt5-xxl-enc-bf16.pth",
    "Wan2.1_VAE.pth",
    "xlm-roberta-large/tokenizer.json",
]


def test_flashtalk_takes_what_is_read_and_nothing_else():
    wanted, missing = FLASHTALK.select(FLASHTALK_FILES)
    unwanted = {
        ".gitattributes",
        "README.md",
        "assets/LICENSE",
        "deeper/config.json",
        "xlm-roberta-large/tokenizer.json",
    }
    assert missing == []
    assert set(FLASHTALK_FILES) - set(wanted) == unwanted | {"deeper/diffusion_pytorch_model.safetensors"}


def test_what_is_missing_is_named_by_the_first_choice():
    _, missing = FLASHTALK.select(["config.json", "google/umt5-xxl/spiece.model"])
    assert "google/umt5-xxl/tokenizer.json" not in missing and "config.json" not in missing
    assert missing[0] == "diffusion_pytorch_model*.safetensors" and "Wan2.1_VAE.pth" in missing


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (["pytorch_model.bin", "model.safetensors"], "pytorch_model.bin"),
        (["model.safetensors"], "model.safetensors"),
    ],
)
def test_of_two_forms_of_the_same_weights_one_is_taken(there, taken):
    wanted, missing = CHINESE_WAV2VEC2.select(["config.json", "preprocessor_config.json", *there])
    assert wanted == ["config.json", "preprocessor_config.json", taken] and missing == []


def test_the_catalogue_holds_together():
    for name, entry in CATALOGUE.items():
        assert entry.name == name and set(entry.needs) <= set(CATALOGUE)
        assert is_commit(entry.revision) or entry.revision == "main"
        assert not entry.known or is_commit(entry.revision), "a hash is certain only of a commit"
        assert all(len(file.sha256) == 64 and int(file.sha256, 16) for file in entry.known.values())
        assert all(entry.select([path])[0] == [path] for path in entry.known), "known files are wanted ones"
    # The sizes that the published layout gives: the exact ones add up.
    assert sum(file.size_bytes for file in CHINESE_WAV2VEC2.known.values()) == CHINESE_WAV2VEC2.size_bytes


def test_an_unknown_name_is_wrong_usage():
    with pytest.raises(UsageError) as caught:
        entry_named("flashtalk")
    assert "flashtalk-14b" in caught.value.hint


@pytest.mark.parametrize("path", [*FLASHTALK_FILES, "a b/ü.bin", "x/.hidden"])
def test_honest_names_are_harmless(path):
    check_path(path)
