"""Is this directory the FlashTalk checkpoint, whole, as far as can be told in a moment and without torch?

The layout is the published one: `config.json`, the transformer in safetensors (one file, or shards with an index), the
text encoder, the image encoder and the VAE as `.pth`, the tokenizer in `google/umt5-xxl`, and beside or inside it the
directory of the speech encoder.
"""

from __future__ import annotations

import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ModelFilesError
from engine.model_store.catalog import CHINESE_WAV2VEC2, FLASHTALK
from engine.model_store.safetensors_header import TensorInfo, read_header

INDEX = "diffusion_pytorch_model.safetensors.index.json"
TEXT_ENCODER = "models_t5_umt5-xxl-enc-bf16.pth"
IMAGE_ENCODER = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
VAE = "Wan2.1_VAE.pth"
TOKENIZER = "google/umt5-xxl"
_TOKENIZER_FILES = ("tokenizer.json", "spiece.model")
_SPEECH_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_SPEECH_NAMES = ("chinese-wav2vec2-base", "wav2vec2")
_LONGEST_NAME_BYTES = 255
"""What file systems take."""
_LARGEST_JSON_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointReport:
    """Where everything is. `transformer_files` are in name order; `tensors` says what they hold, by name.

    `speech_directory` is None only where it was not asked for and not found. `size_bytes` counts what a loader reads.
    """

    directory: Path
    config: dict[str, Any]
    transformer_files: tuple[Path, ...]
    tensors: dict[str, TensorInfo]
    text_encoder: Path
    image_encoder: Path
    vae: Path
    tokenizer: Path
    speech_directory: Path | None
    speech_weights: Path | None
    size_bytes: int

    @property
    def transformer_parameters(self) -> int:
        """Number of parameters of the transformer."""
        return sum(tensor.parameters for tensor in self.tensors.values())

    @property
    def transformer_dtypes(self) -> tuple[str, ...]:
        """The dtypes of its tensors as the format calls them (`BF16`), the most frequent first."""
        counts: dict[str, int] = {}
        for tensor in self.tensors.values():
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + math.prod(tensor.shape)
        return tuple(sorted(counts, key=lambda dtype: -counts[dtype]))


def inspect_checkpoint(
    directory: Path | str, speech_directory: Path | str | None = None, *, needs_speech: bool = True
) -> CheckpointReport:
    """Look at the layout, the configuration and the ends of the files; a second at most, whatever the size.

    Without `speech_directory` the speech encoder is looked for inside the checkpoint and beside it, under its
    published name. Raises `ModelFilesError`: what is missing or damaged, the size to expect, where to get it.
    """
    directory = Path(directory)
    _check_is_directory(directory, "the FlashTalk checkpoint")
    files, index_tensors = _transformer_files(directory)
    missing = _missing(directory, files)
    if missing:
        raise _not_the_checkpoint(directory, missing)
    config = _configuration(directory)
    tensors = _tensors(files, index_tensors)
    others = [directory / name for name in (TEXT_ENCODER, IMAGE_ENCODER, VAE)]
    for path in others:
        _check_pickle(path)
    speech, weights = _speech(directory, speech_directory, is_needed=needs_speech)
    read = [*files, *others, *([weights] if weights is not None else [])]
    return CheckpointReport(
        directory=directory,
        config=config,
        transformer_files=tuple(files),
        tensors=tensors,
        text_encoder=others[0],
        image_encoder=others[1],
        vae=others[2],
        tokenizer=directory / TOKENIZER,
        speech_directory=speech,
        speech_weights=weights,
        size_bytes=sum(path.stat().st_size for path in read),
    )


def inspect_speech_encoder(directory: Path | str) -> Path:
    """The weights file of a directory in chinese-wav2vec2-base's layout. Raises `ModelFilesError`."""
    directory = Path(directory)
    _check_is_directory(directory, "the speech encoder")
    missing = [name for name in ("config.json", "preprocessor_config.json") if not (directory / name).is_file()]
    weights = next((directory / name for name in _SPEECH_WEIGHTS if (directory / name).is_file()), None)
    if weights is None:
        missing.append(" or ".join(reversed(_SPEECH_WEIGHTS)))
    if missing or weights is None:
        raise ModelFilesError(
            f"{directory} is not the speech encoder: {', '.join(missing)} {_is_are(missing)} missing.",
            code="models.no_speech_encoder",
            hint=f"About {CHINESE_WAV2VEC2.size_bytes / 1e6:.0f} MB; get it with "
            f'"standin models download {CHINESE_WAV2VEC2.name}" or from {CHINESE_WAV2VEC2.page}.',
        )
    kind = _read_object(directory / "config.json").get("model_type")
    if kind != "wav2vec2":
        raise ModelFilesError(
            f'{directory} holds a model of type "{kind}", not wav2vec2.',
            code="models.wrong_type",
            hint=f"Give the directory of {CHINESE_WAV2VEC2.repository}.",
        )
    if weights.suffix == ".safetensors":
        read_header(weights)
    else:
        _check_pickle(weights)
    return weights


def _check_is_directory(directory: Path, what: str) -> None:
    if directory.is_dir():
        return
    is_file = directory.exists()
    raise ModelFilesError(
        f"{directory} is a file, not a directory." if is_file else f"There is no directory {directory}.",
        code="models.no_directory",
        hint=f"Give the directory that holds all files of {what}."
        if is_file
        else f'"standin models download {FLASHTALK.name}" fetches {what}.',
    )


def _transformer_files(directory: Path) -> tuple[list[Path], dict[str, str]]:
    """The files in name order, and tensor -> file name as the index has it (empty without one)."""
    index = directory / INDEX
    if not index.is_file():
        return sorted(directory.glob("diffusion_pytorch_model*.safetensors")), {}
    weight_map = _read_object(index).get("weight_map")
    is_valid = isinstance(weight_map, dict) and all(_is_shard_name(name) for name in weight_map.values())
    if not is_valid or not weight_map:
        raise ModelFilesError(
            f"{index} does not say which file holds which tensor.",
            code="models.damaged_file",
            hint="Copy or download this file again.",
        )
    return [directory / name for name in sorted(set(weight_map.values()))], weight_map


def _is_shard_name(name: Any) -> bool:
    """Of a file in this directory; half characters (surrogates) are in no file's name."""
    try:
        return (
            isinstance(name, str)
            and Path(name).name == name
            and name.endswith(".safetensors")
            and len(name.encode("utf-8")) <= _LONGEST_NAME_BYTES
        )
    except UnicodeEncodeError:
        return False


def _missing(directory: Path, transformer_files: list[Path]) -> list[str]:
    missing = [name for name in ("config.json",) if not (directory / name).is_file()]
    missing += [path.name for path in transformer_files if not path.is_file()]
    if not transformer_files:
        missing.append("diffusion_pytorch_model*.safetensors")
    elif any("-of-" in path.name for path in transformer_files) and not (directory / INDEX).is_file():
        missing.append(INDEX)
    missing += [name for name in (TEXT_ENCODER, IMAGE_ENCODER, VAE) if not (directory / name).is_file()]
    if not any((directory / TOKENIZER / name).is_file() for name in _TOKENIZER_FILES):
        missing.append(f"{TOKENIZER}/{_TOKENIZER_FILES[0]}")
    return missing


def _not_the_checkpoint(directory: Path, missing: list[str]) -> ModelFilesError:
    shown = ", ".join(missing[:6]) + (f" and {len(missing) - 6} more" if len(missing) > 6 else "")
    return ModelFilesError(
        f"{directory} is not the whole FlashTalk checkpoint: {shown} {_is_are(missing)} missing.",
        code="models.not_the_checkpoint",
        hint=f"It is {FLASHTALK.repository}, about {FLASHTALK.size_bytes / 1e9:.0f} GB; get it with "
        f'"standin models download {FLASHTALK.name}" or from {FLASHTALK.page}.',
        detail=", ".join(missing),
    )


def _configuration(directory: Path) -> dict[str, Any]:
    config = _read_object(directory / "config.json")
    kind = config.get("model_type")
    if kind != "i2v":
        said = f'is of type "{kind}"' if kind is not None else "names no model type"
        raise ModelFilesError(
            f'The model in {directory} {said}, where FlashTalk\'s is "i2v".',
            code="models.wrong_type",
            hint=f"Give the directory of {FLASHTALK.repository}.",
        )
    return config


def _tensors(files: list[Path], index_tensors: dict[str, str]) -> dict[str, TensorInfo]:
    """All files' headers together, held against the index."""
    tensors: dict[str, TensorInfo] = {}
    for path in files:
        header = read_header(path)
        absent = [name for name, file in index_tensors.items() if file == path.name and name not in header]
        if absent:
            raise ModelFilesError(
                f"{path} lacks {len(absent)} of the tensors that {INDEX} places in it, {absent[0]} first.",
                code="models.damaged_file",
                hint="The files are not of one download; get this one and the index again.",
                detail=", ".join(absent[:20]),
            )
        tensors.update(header)
    return tensors


def _check_pickle(path: Path) -> None:
    """torch's files are ZIP archives, whose directory is at the end: a truncated one has none. Old ones are bare
    pickles, of which only emptiness can be seen here."""
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
        is_whole = path.stat().st_size > 0 and (not is_zip or zipfile.is_zipfile(path))
    except OSError as error:
        raise ModelFilesError(f"{path} cannot be read: {error.strerror or error}.", code="models.unreadable") from error
    if not is_whole:
        raise ModelFilesError(
            f"{path} is damaged: it is cut off after {path.stat().st_size} bytes.",
            code="models.damaged_file",
            hint="Copy or download this file again.",
        )


def _speech(directory: Path, given: Path | str | None, *, is_needed: bool) -> tuple[Path, Path] | tuple[None, None]:
    if given is not None:
        return Path(given), inspect_speech_encoder(given)
    for place in (directory, directory.parent):
        for name in _SPEECH_NAMES:
            if (place / name / "config.json").is_file():
                return place / name, inspect_speech_encoder(place / name)
    if not is_needed:
        return None, None
    raise ModelFilesError(
        f"The speech encoder {CHINESE_WAV2VEC2.name} is neither in {directory} nor beside it.",
        code="models.no_speech_encoder",
        hint=f"About {CHINESE_WAV2VEC2.size_bytes / 1e6:.0f} MB; get it with "
        f'"standin models download {CHINESE_WAV2VEC2.name}" or from {CHINESE_WAV2VEC2.page}, '
        "and name its directory or put it beside the checkpoint.",
    )


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `ModelFilesError`."""
    try:
        if path.stat().st_size > _LARGEST_JSON_BYTES:
            raise ValueError("too large")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFilesError(
            f"{path} cannot be read as JSON.", code="models.damaged_file", hint="Copy or download this file again."
        ) from error
    if not isinstance(content, dict):
        raise ModelFilesError(
            f"{path} cannot be read as JSON.", code="models.damaged_file", hint="Copy or download this file again."
        )
    return content


def _is_are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
