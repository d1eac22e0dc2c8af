"""Is it the FlashTalk checkpoint? What is said if not."""

from __future__ import annotations

import json
import shutil
import struct

import pytest

from engine.errors import ModelFilesError
from engine.model_store.checkpoint import inspect_checkpoint
from engine.model_store.safetensors_header import read_header

INDEX = "diffusion_pytorch_model.safetensors.index.json"
SHARD = "diffusion_pytorch_model-00002-of-00002.safetensors"


def _refusal(*arguments, **options) -> ModelFilesError:
    with pytest.raises(ModelFilesError) as caught:
        inspect_checkpoint(*arguments, **options)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
    return caught.value


def test_reports_what_is_where(checkpoint):
    report = inspect_checkpoint(checkpoint)
    assert report.config["dim"] == 8
    assert [path.name for path in report.transformer_files] == [SHARD.replace("00002-of", "00001-of"), SHARD]
    assert {name: tensor.shape for name, tensor in report.tensors.items()} == {
        "head": (2, 3),
        "tail": (4,),
        "middle": (5, 5),
    }
    assert report.transformer_parameters == 35 and report.transformer_dtypes == ("F32",)
    assert report.vae.name == "Wan2.1_VAE.pth" and report.tokenizer == checkpoint / "google" / "umt5-xxl"
    assert report.speech_directory == checkpoint.parent / "chinese-wav2vec2-base"
    assert report.speech_weights.name == "pytorch_model.bin"
    read = [*report.transformer_files, report.text_encoder, report.image_encoder, report.vae, report.speech_weights]
    assert report.size_bytes == sum(path.stat().st_size for path in read)


def test_one_file_without_an_index_will_do(checkpoint):
    (checkpoint / INDEX).unlink()
    (checkpoint / SHARD).rename(checkpoint / "diffusion_pytorch_model.safetensors")
    (checkpoint / SHARD.replace("00002-of", "00001-of")).unlink()
    assert set(inspect_checkpoint(checkpoint).tensors) == {"middle"}


def test_the_speech_encoder_may_be_given_inside_or_left_out(checkpoint, speech_encoder):
    assert inspect_checkpoint(checkpoint, speech_encoder).speech_directory == speech_encoder
    beside = checkpoint.parent / "chinese-wav2vec2-base"
    shutil.move(beside, checkpoint / "wav2vec2")
    assert inspect_checkpoint(checkpoint).speech_directory == checkpoint / "wav2vec2"
    shutil.rmtree(checkpoint / "wav2vec2")
    assert inspect_checkpoint(checkpoint, needs_speech=False).speech_directory is None
    error = _refusal(checkpoint)
    assert error.code == "models.no_speech_encoder" and "380 MB" in error.hint
    assert "TencentGameMate/chinese-wav2vec2-base" in error.hint


def test_says_what_is_missing_how_large_it_is_and_where_to_get_it(checkpoint):
    (checkpoint / "Wan2.1_VAE.pth").unlink()
    (checkpoint / SHARD).unlink()
    error = _refusal(checkpoint)
    assert error.code == "models.not_the_checkpoint"
    assert "Wan2.1_VAE.pth" in error.message and SHARD in error.message and "config.json" not in error.message
    assert "54 GB" in error.hint and "standin models download flashtalk-14b" in error.hint
    assert "Soul-AILab/SoulX-FlashTalk-14B" in error.hint


def test_an_empty_directory_a_file_and_nothing_at_all(checkpoint, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "config.json, diffusion_pytorch_model*.safetensors" in _refusal(tmp_path / "empty").message
    assert "is a file" in _refusal(checkpoint / "config.json").message
    assert "There is no directory" in _refusal(tmp_path / "nowhere").message


def test_shards_without_their_index_are_not_enough(checkpoint):
    (checkpoint / INDEX).unlink()
    assert INDEX in _refusal(checkpoint).message


@pytest.mark.parametrize("config", ['{"model_type": "t2v"}', "{}", "[1]", "no JSON"])
def test_another_model_is_refused(checkpoint, config):
    (checkpoint / "config.json").write_text(config)
    assert _refusal(checkpoint).code in ("models.wrong_type", "models.damaged_file")


@pytest.mark.parametrize("keep_bytes", [0, 7, 20, -1, -60])
def test_a_truncated_shard_is_found_without_reading_its_tensors(checkpoint, keep_bytes):
    whole = (checkpoint / SHARD).read_bytes()
    (checkpoint / SHARD).write_bytes(whole[:keep_bytes] if keep_bytes else b"")
    error = _refusal(checkpoint)
    assert error.code == "models.damaged_file" and SHARD in error.message


def test_a_shard_that_is_too_long_or_from_another_download_is_found(checkpoint):
    whole = (checkpoint / SHARD).read_bytes()
    (checkpoint / SHARD).write_bytes(whole + b"x")
    assert "1 bytes too many" in _refusal(checkpoint).message
    first = checkpoint / SHARD.replace("00002-of", "00001-of")
    (checkpoint / SHARD).write_bytes(first.read_bytes())
    assert "lacks 1 of the tensors" in _refusal(checkpoint).message


@pytest.mark.parametrize("name", ["Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth"])
def test_a_truncated_pickle_is_found(checkpoint, name):
    whole = (checkpoint / name).read_bytes()
    (checkpoint / name).write_bytes(whole[:-30])
    assert name in _refusal(checkpoint).message
    (checkpoint / name).write_bytes(b"\x80\x02 an old bare pickle")
    inspect_checkpoint(checkpoint)


def test_an_index_cannot_point_out_of_the_directory(checkpoint):
    (checkpoint / INDEX).write_text(json.dumps({"weight_map": {"head": "../../secret.safetensors"}}))
    assert _refusal(checkpoint).code == "models.damaged_file"


def test_a_speech_encoder_that_is_none(checkpoint, speech_encoder):
    (speech_encoder / "pytorch_model.bin").unlink()
    error = _refusal(checkpoint, speech_encoder)
    assert "pytorch_model.bin or model.safetensors is missing" in error.message
    (speech_encoder / "config.json").write_text('{"model_type": "hubert"}')
    (speech_encoder / "model.safetensors").write_bytes(b"")
    assert "hubert" in _refusal(checkpoint, speech_encoder).message


@pytest.mark.parametrize(
    "header",
    [b"[]", b"{", b'{"a": 1}', b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}'],
)
def test_a_header_of_nonsense_is_damage_not_a_crash(tmp_path, header):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ModelFilesError, match="damaged"):
        read_header(path)


def test_a_header_length_beyond_reason_is_not_read(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(ModelFilesError, match="beginning"):
        read_header(path)
