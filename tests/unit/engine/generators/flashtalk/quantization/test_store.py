"""8-bit weights on disk: read at the second start instead of the wide ones, made again when anything differs."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from engine.errors import Cancelled  # noqa: E402
from engine.generators.flashtalk import weights  # noqa: E402
from engine.generators.flashtalk.config import DiTConfig  # noqa: E402
from engine.generators.flashtalk.quantization import store, tensor_file  # noqa: E402
from engine.generators.flashtalk.quantization.linear import QuantizedLinear, is_quantized  # noqa: E402
from engine.generators.flashtalk.quantization.scheme import FP8, INT8, SCHEMES, quantize_weight  # noqa: E402
from engine.generators.flashtalk.quantization.store import checkpoint_key  # noqa: E402
from engine.generators.flashtalk.transformer import is_set_up_only  # noqa: E402
from engine.generators.flashtalk.weights import Placement, load_dit  # noqa: E402
from engine.model_store.quantized import quantized_copies, remove_quantized_copies  # noqa: E402

CPU = torch.device("cpu")


class Progress:
    def __init__(self, limit: int | None = None) -> None:
        self.said, self.limit = 0, limit

    def update(self, stage, done, total, unit=""):
        self.said += 1
        if self.limit is not None and self.said >= self.limit:
            raise Cancelled("It was stopped.")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(store, "quantized_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path) -> Path:
    own = tmp_path / "checkpoint"
    own.mkdir()
    for path in tiny_checkpoint[0].glob("*.*"):
        if path.suffix in (".json", ".safetensors"):
            shutil.copy(path, own)
    return own


@pytest.fixture
def reads(monkeypatch) -> Counter:
    """(file suffix of the name, tensor) -> bytes that were taken out of a file."""
    taken: Counter = Counter()

    class Counting:
        def __init__(self, path, **options) -> None:
            self.path, self.file = Path(path), real(path, **options)

        def __enter__(self):
            self.file = self.file.__enter__()
            return self

        def __exit__(self, *error):
            return self.file.__exit__(*error)

        def get_tensor(self, name):
            tensor = self.file.get_tensor(name)
            taken[self.path.parent.name, name] += tensor.nbytes
            return tensor

        def __getattr__(self, name):
            return getattr(self.file, name)

    real = weights.safe_open
    monkeypatch.setattr(weights, "safe_open", Counting)
    monkeypatch.setattr(store, "safe_open", Counting)
    return taken


def _load(checkpoint: Path, scheme=INT8, progress=None, **options):
    config = DiTConfig.from_file(checkpoint / "config.json")
    files = sorted(checkpoint.glob("*.safetensors"))
    placement = Placement(scheme=scheme, **options)
    dit = load_dit(config, files, CPU, torch.bfloat16, progress or Progress(), placement)
    dit.bring()
    return dit


def _same(one, other) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(
        torch.equal(left[name].view(torch.uint8), right[name].view(torch.uint8)) for name in left
    )


@pytest.mark.parametrize("name", SCHEMES)
def test_a_loaded_model_has_the_checkpoints_weights_in_8_bits(checkpoint, folder, name):
    dit = _load(checkpoint, SCHEMES[name])
    stored = {n: v for path in checkpoint.glob("*.safetensors") for n, v in load_file(path).items()}
    layers = {n: layer for n, layer in dit.named_modules() if isinstance(layer, QuantizedLinear)}
    assert len(layers) == 20
    for path, layer in layers.items():
        quantized, scale = quantize_weight(stored[f"{path}.weight"], SCHEMES[name])
        assert torch.equal(layer.quantized.view(torch.uint8), quantized.view(torch.uint8)), path
        assert torch.equal(layer.scale, scale) and torch.equal(layer.bias, stored[f"{path}.bias"]), path
    rest = [n for n in dit.state_dict() if n in stored and not n.startswith("head.head")]
    assert len(rest) > 60 and all(torch.equal(dit.state_dict()[n], stored[n]) for n in rest)


@pytest.mark.parametrize("name", SCHEMES)
def test_the_second_start_reads_half_the_bytes_and_no_wide_ones(checkpoint, folder, reads, name):
    first = _load(checkpoint, SCHEMES[name])
    wide = {n: b for (where, n), b in reads.items() if where == "checkpoint" and not is_set_up_only(n)}
    assert [copy.precision for copy in quantized_copies(folder)] == [name]
    reads.clear()
    second = _load(checkpoint, SCHEMES[name])
    assert _same(first, second)
    again = {n: b for (where, n), b in reads.items() if where == "checkpoint" and not is_set_up_only(n)}
    narrow = {n: b for (where, n), b in reads.items() if where == "cache"}
    matrices = {n: b for n, b in wide.items() if is_quantized(n, first_shape(checkpoint, n))}
    assert len(matrices) == 20 and not matrices.keys() & again.keys()
    assert again == {n: b for n, b in wide.items() if n not in matrices}
    in_8_bits = sum(b for n, b in narrow.items() if n.endswith(".quantized"))
    assert 2 * in_8_bits == sum(matrices.values())
    assert sum(narrow.values()) - in_8_bits == 4 * sum(len(layer.scale) for layer in _layers(second))


def first_shape(checkpoint: Path, name: str) -> torch.Size:
    for path in checkpoint.glob("*.safetensors"):
        tensors = load_file(path)
        if name in tensors:
            return tensors[name].shape
    raise KeyError(name)


def _layers(dit) -> list[QuantizedLinear]:
    return [layer for layer in dit.modules() if isinstance(layer, QuantizedLinear)]


def test_schemes_lie_beside_one_another_and_versions_do_not(checkpoint, folder):
    _load(checkpoint, FP8)
    _load(checkpoint, INT8)
    assert {copy.precision for copy in quantized_copies(folder)} == {"fp8", "int8"}
    newer = replace(INT8, version=INT8.version + 1)
    _load(checkpoint, newer)
    names = sorted(path.stem.split("-", 1)[1] for path in folder.iterdir())
    assert names == ["fp8-v1", f"int8-v{newer.version}"]


def _change(path: Path, name: str) -> None:
    """One number in the middle of one tensor."""
    tensors = {n: v.clone() for n, v in load_file(path).items()}
    tensors[name].view(-1)[:] *= 1.25
    path.unlink()
    save_file(tensors, path)


def test_another_checkpoint_is_quantised_anew(checkpoint, folder, reads):
    _load(checkpoint)
    shard = next(p for p in checkpoint.glob("*.safetensors") if "blocks.1.ffn.0.weight" in load_file(p))
    before = checkpoint_key(sorted(checkpoint.glob("*.safetensors")))
    _change(shard, "blocks.1.ffn.0.weight")
    assert checkpoint_key(sorted(checkpoint.glob("*.safetensors"))) != before
    reads.clear()
    dit = _load(checkpoint)
    assert ("checkpoint", "blocks.1.ffn.0.weight") in reads and len(quantized_copies(folder)) == 1
    assert torch.equal(dit.blocks[1].ffn[0].scale, quantize_weight(load_file(shard)["blocks.1.ffn.0.weight"], INT8)[1])


def test_a_checkpoint_that_was_moved_is_known(checkpoint, folder, reads, tmp_path):
    _load(checkpoint)
    moved = tmp_path / "elsewhere"
    shutil.move(checkpoint, moved)
    reads.clear()
    _load(moved)
    assert ("elsewhere", "blocks.1.ffn.0.weight") not in reads and ("elsewhere", "blocks.1.ffn.0.bias") in reads


@pytest.mark.parametrize("damage", ["cut off", "empty", "text", "another layout"])
def test_a_damaged_file_is_made_again(checkpoint, folder, damage, caplog):
    first = _load(checkpoint)
    (path,) = folder.iterdir()
    data = path.read_bytes()
    path.unlink()
    if damage == "another layout":
        save_file({"blocks.0.ffn.0.quantized": torch.zeros(3, dtype=torch.int8)}, path)
    else:
        path.write_bytes({"cut off": data[:-9], "empty": b"", "text": b"hello " * 100}[damage])
    with caplog.at_level(logging.WARNING):
        assert _same(first, _load(checkpoint))
    assert "made again" in caplog.text and path.read_bytes() == data


def _full(*_arguments, **_options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class _FullFile:
    """Opened on a disk without room."""

    def __init__(self, handle: int, mode: str) -> None:
        os.close(handle)

    write = _full

    def close(self) -> None: ...


@pytest.mark.parametrize("when", ["folder", "room", "header", "in the middle", "at the end"])
def test_a_full_disk_costs_only_time_and_leaves_nothing(checkpoint, folder, when, monkeypatch, caplog):
    if when == "folder":
        monkeypatch.setattr(store, "private_folder", _full)
    elif when == "room":
        monkeypatch.setattr(store.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**8))
    elif when == "header":
        monkeypatch.setattr(tensor_file.os, "fdopen", _FullFile)
    elif when == "in the middle":
        real, calls = tensor_file.TensorFileWriter.write, []

        def write(self, name, tensor):
            calls.append(name)
            return _full() if len(calls) == 7 else real(self, name, tensor)

        monkeypatch.setattr(tensor_file.TensorFileWriter, "write", write)
    else:
        monkeypatch.setattr(tensor_file.os, "fsync", _full)
    with caplog.at_level(logging.WARNING):
        dit = _load(checkpoint)
    assert len(_layers(dit)) == 20 and caplog.text.count("could not be stored") == 1
    assert not folder.exists() or not list(folder.iterdir())


def test_a_stopped_start_leaves_nothing(checkpoint, folder):
    with pytest.raises(Cancelled):
        _load(checkpoint, progress=Progress(20))
    assert not list(folder.iterdir())
    _load(checkpoint)
    assert len(list(folder.iterdir())) == 1


def test_other_ranks_read_and_do_not_write(checkpoint, folder):
    _load(checkpoint, keeps=False)
    assert not folder.exists()
    first = _load(checkpoint)
    assert _same(first, _load(checkpoint, keeps=False))


def test_copies_can_be_removed(checkpoint, folder):
    _load(checkpoint)
    _load(checkpoint, FP8)
    whole = next(folder.glob("*-int8-*"))
    draft = whole.with_suffix(".123-abcdef.tmp")
    draft.write_bytes(bytes(100))
    (folder / "something.safetensors").write_bytes(bytes(7))
    listed = {(copy.precision, copy.is_whole): copy.size_bytes for copy in quantized_copies(folder)}
    assert set(listed) == {("fp8", True), ("int8", True), ("int8", False), ("?", True)}
    assert remove_quantized_copies(folder, "int8") == listed["int8", True] + 100
    assert {copy.precision for copy in quantized_copies(folder)} == {"fp8", "?"}
    assert remove_quantized_copies(folder) == listed["fp8", True] + 7 and not list(folder.iterdir())
    assert quantized_copies(folder) == [] and remove_quantized_copies(folder / "none") == 0


def test_a_copy_that_is_removed_while_it_is_written_is_no_error(checkpoint, folder, monkeypatch, caplog):
    real = tensor_file.TensorFileWriter.close

    def close(self):
        assert [copy.is_whole for copy in quantized_copies(folder)] == [False]
        remove_quantized_copies(folder)
        real(self)

    monkeypatch.setattr(tensor_file.TensorFileWriter, "close", close)
    with caplog.at_level(logging.WARNING):
        dit = _load(checkpoint)
    assert len(_layers(dit)) == 20 and "could not be stored" in caplog.text and not list(folder.iterdir())
