"""Files written tensor by tensor, read back by the format's own library."""

from __future__ import annotations

import os
import stat
import sys

import pytest

torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from engine.generators.flashtalk.quantization.tensor_file import TensorFileWriter, file_bytes  # noqa: E402
from engine.model_store.safetensors_header import read_header  # noqa: E402

TENSORS = {
    "a": torch.randn(3, 5).to(torch.float8_e4m3fn),
    "b": torch.arange(-100, 100, dtype=torch.int8).view(20, 10),
    "c": torch.randn(7),
    "d": torch.randn(2, 3, 4).bfloat16(),
}
LAYOUT = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in TENSORS.items()}


def _written(path, names=tuple(TENSORS)):
    writer = TensorFileWriter(path, LAYOUT, {"scheme": "x"})
    for name in names:
        writer.write(name, TENSORS[name])
    return writer


@pytest.mark.parametrize("names", ["abcd", "dbca"], ids=["in order", "in another order"])
def test_the_library_reads_what_was_written(tmp_path, names):
    path = tmp_path / "file.safetensors"
    _written(path, names).close()
    read = load_file(path)
    assert list(read_header(path)) == list(TENSORS) and read.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name].view(torch.uint8), tensor.view(torch.uint8))
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"scheme": "x"}
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert file_bytes(LAYOUT) == 15 + 200 + 28 + 48


def test_it_has_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "file.safetensors"
    path.write_bytes(b"the one before")
    writer = _written(path, "abc")
    assert path.read_bytes() == b"the one before"
    with pytest.raises(ValueError, match="1 tensors were never written, such as d"):
        writer.close()
    writer.write("d", TENSORS["d"])
    writer.close()
    assert torch.equal(load_file(path)["d"], TENSORS["d"])


def test_what_is_given_up_leaves_nothing(tmp_path):
    writer = _written(tmp_path / "file.safetensors", "ab")
    writer.discard()
    writer.discard()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("other", [torch.zeros(3, 4).to(torch.float8_e4m3fn), torch.zeros(3, 5)])
def test_what_was_not_laid_out_is_refused(tmp_path, other):
    writer = TensorFileWriter(tmp_path / "file.safetensors", LAYOUT, {})
    with pytest.raises(ValueError, match="a is not"):
        writer.write("a", other)
    writer.discard()


@pytest.mark.skipif(sys.platform == "win32", reason="rights of another kind")
def test_it_is_for_this_user_alone(tmp_path):
    before = os.umask(0)
    try:
        _written(tmp_path / "file.safetensors").close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file.safetensors").stat().st_mode) == 0o600
