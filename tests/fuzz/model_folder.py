"""Text that stands where a checkpoint, a download or a hub's answer keeps its index."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any
from unittest import mock

SHARD = "diffusion_pytorch_model-00001-of-00001.safetensors"


def run_index_content(kind: str, content: bytes, folder: Path) -> None:
    """`kind` is index, config, speech, manifest or hub."""
    if kind == "manifest":
        _read_manifest(content, folder)
    elif kind == "hub":
        _list_hub(content)
    else:
        _inspect(kind, content, folder)


def _inspect(kind: str, content: bytes, folder: Path) -> None:
    from engine.model_store.checkpoint import INDEX, inspect_checkpoint

    place = _checkpoint(folder)
    target = {"index": place / INDEX, "config": place / "config.json"}
    path = target.get(kind, folder / "chinese-wav2vec2-base" / "config.json")
    path.write_bytes(content)
    report = inspect_checkpoint(place)
    assert all(file.parent == place for file in report.transformer_files)
    assert isinstance(report.transformer_parameters, int) and report.transformer_dtypes


def _checkpoint(folder: Path) -> Path:
    """Two small tensors in one shard, beside a speech encoder."""
    from engine.model_store import checkpoint as c

    place = folder / "checkpoint"
    (place / c.TOKENIZER).mkdir(parents=True)
    (place / c.TOKENIZER / "tokenizer.json").write_text("{}")
    (place / "config.json").write_text('{"model_type": "i2v"}')
    header = {name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * n, 4 * n + 4]} for n, name in enumerate("ab")}
    text = json.dumps(header).encode()
    (place / SHARD).write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    speech = folder / "chinese-wav2vec2-base"
    speech.mkdir()
    (speech / "config.json").write_text('{"model_type": "wav2vec2"}')
    (speech / "preprocessor_config.json").write_text("{}")
    for path in (place / c.TEXT_ENCODER, place / c.IMAGE_ENCODER, place / c.VAE, speech / "pytorch_model.bin"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a", b"b")
    return place


def _read_manifest(content: bytes, folder: Path) -> None:
    from engine.model_store.manifest import MANIFEST_NAME, read_manifest, write_manifest
    from engine.model_store.verify import hash_files

    (folder / MANIFEST_NAME).write_bytes(content)
    manifest = read_manifest(folder)
    if manifest is None:
        return
    assert isinstance(manifest.size_bytes, int) and manifest.size_bytes >= 0
    hash_files(folder, manifest, mock.Mock())
    write_manifest(folder, manifest)
    assert read_manifest(folder) == manifest
    for record in manifest.files:
        assert (folder / record.path).resolve().is_relative_to(folder.resolve())


def _list_hub(content: bytes) -> None:
    from engine.model_store import hub

    class Api:
        def __init__(self, **options: Any) -> None:
            pass

        def model_info(self, *arguments: Any, **options: Any) -> Any:
            from huggingface_hub.hf_api import ModelInfo

            return ModelInfo(**json.loads(content))

        def list_repo_tree(self, *arguments: Any, **options: Any) -> Any:
            return iter(())

    library = mock.Mock(HfApi=Api)
    with mock.patch.object(hub, "_library", return_value=library):
        try:
            listing = hub.Hub("https://hub.invalid").listing("o/r", "main")
        except hub.Interrupted:
            return
    assert isinstance(listing.commit, str) and isinstance(listing.licence, str)
    for record in listing.files:
        assert isinstance(record.sha256, str) and isinstance(record.git_sha1, str) and record.size_bytes >= 0
