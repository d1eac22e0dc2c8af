"""From the published files to modules: mapped into memory, checked name by name, cast by rule, moved once.

Nothing is unpickled with the power to run code, and no tensor is copied on the host unless its precision changes.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from engine.errors import ModelFilesError
from engine.generators.base import Progress
from engine.generators.flashtalk.config import DiTConfig
from engine.generators.flashtalk.quantization.linear import is_quantized, is_streamed, prepare_quantized
from engine.generators.flashtalk.quantization.products import WIDENED, Product
from engine.generators.flashtalk.quantization.scheme import SCHEMES, Scheme
from engine.generators.flashtalk.quantization.store import QuantizedWeights
from engine.generators.flashtalk.transformer import DiT, is_set_up_only

_SHOWN_KEYS = 3
_TOLD_STEPS = 200
"""Progress is told this often at most: there are 1633 tensors, and most of them are small."""


_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Which dtype each part computes in. Norms, gates, modulation, head, rotation and colour are float32 anyway."""

    dit: torch.dtype
    vae: torch.dtype
    text: torch.dtype
    image: torch.dtype
    speech: torch.dtype = torch.float32


PRECISIONS = ("auto", "bf16", "fp16", "fp32", *SCHEMES)
"""Values of the option `precision`; the last ones keep the blocks' matrices in 8 bits and all else as auto does."""


def precision_for(device: torch.device, wanted: str = "auto") -> Precision:
    """16 bits where the reference has them, on a GPU; float32 throughout elsewhere. Another `wanted` of `PRECISIONS`
    is that of transformer and VAE; encoders keep theirs."""
    if wanted in _DTYPES:
        own, chosen = precision_for(device), _DTYPES[wanted]
        return Precision(dit=chosen, vae=chosen, text=own.text, image=own.image)
    if device.type != "cuda":
        return Precision(dit=torch.float32, vae=torch.float32, text=torch.float32, image=torch.float32)
    return Precision(dit=torch.bfloat16, vae=torch.bfloat16, text=torch.bfloat16, image=torch.float16)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How the transformer's weights are kept: those of `quantization.linear` in 8 bits by `scheme` if there is one,
    those of the blocks in `streamed` on the host. `keeps` says whether 8-bit weights are stored for the next start;
    where that fails, `tell` is called with the reason."""

    scheme: Scheme | None = None
    product: Product = WIDENED
    streamed: frozenset[int] = frozenset()
    keeps: bool = True
    tell: Callable[[str], None] = lambda _reason: None


RESIDENT = Placement()
"""All on the device, in the precision of the tokens."""


def load_dit(
    config: DiTConfig,
    files: Sequence[Path],
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress,
    placement: Placement = RESIDENT,
) -> DiT:
    """The transformer from its safetensors `files`, ready to step on `device`. What only conditions need stays in the
    file, in the file's own precision, and is mapped when it is first needed: even to map a tensor reads from it, and
    what lies behind. The matrices of streamed blocks stay on the host, mapped where they have `dtype` already. A weight
    that becomes 8 bits does so on `device`, and is there in 16 bits alone and only for that long.

    Raises `ModelFilesError`, or `Cancelled` from `progress`.
    """
    with torch.device("meta"):
        dit = DiT(config)
    with ExitStack() as opened:
        where = _open_shards(files)
        expected = dit.state_dict()
        check_names(expected, {name: _Shape(shard, name) for name, shard in where.items()}, files[0].parent)
        quantized = _quantized_weights(files, expected, placement, opened)
        if quantized is not None:
            assert placement.scheme is not None
            prepare_quantized(dit, placement.scheme, placement.product)
        state = _read_state(where, expected, _Target(device, dtype, placement), quantized, progress, files[0].parent)
    if quantized is not None and quantized.problem:
        placement.tell(quantized.problem)
    assign(dit, state)
    folder = files[0].parent
    dit.leave_absent({name: partial(_fetched, where[name], name, folder) for name in where if is_set_up_only(name)})
    # Rounded like the rest, as the reference does, then kept wide: it is applied in float32 at every step.
    dit.head.head.to(torch.promote_types(dtype, torch.float32))
    return dit


@dataclass(frozen=True)
class _Target:
    device: torch.device
    dtype: torch.dtype
    placement: Placement

    def device_of(self, name: str) -> torch.device:
        """Where the parameter of that name (of the checkpoint) belongs."""
        streamed = is_streamed(name) and int(name.split(".")[1]) in self.placement.streamed
        return torch.device("cpu") if streamed else self.device


def _quantized_weights(
    files: Sequence[Path], expected: Mapping[str, Tensor], placement: Placement, opened: ExitStack
) -> QuantizedWeights | None:
    if placement.scheme is None:
        return None
    shapes = {name: tensor.shape for name, tensor in expected.items() if is_quantized(name, tensor.shape)}
    with _explained(files[0].parent):
        weights = QuantizedWeights(placement.scheme, files, shapes, keeps=placement.keeps)
    return opened.enter_context(weights)


def _read_state(
    where: Mapping[str, safe_open],
    expected: Mapping[str, Tensor],
    target: _Target,
    quantized: QuantizedWeights | None,
    progress: Progress,
    folder: Path,
) -> dict[str, Tensor]:
    """Every parameter where it belongs, in the order of the files."""
    counts = {name: 0 if is_set_up_only(name) else tensor.numel() for name, tensor in expected.items()}
    total = sum(counts.values()) * target.dtype.itemsize
    state: dict[str, Tensor] = {}
    done = 0
    for name, shard in where.items():
        there, count = target.device_of(name), counts[name]
        with _explained(folder):
            if quantized is not None and is_quantized(name, expected[name].shape):
                parts = quantized.get(name, lambda shard=shard, name=name: shard.get_tensor(name), target.device)
                base = name.removesuffix(".weight")
                state[f"{base}.quantized"], state[f"{base}.scale"] = parts[0].to(there), parts[1].to(target.device)
            elif is_set_up_only(name):
                state[name] = expected[name]
            else:
                state[name] = shard.get_tensor(name).to(there, target.dtype)
        told, done = done * _TOLD_STEPS // total, done + count * target.dtype.itemsize
        if done * _TOLD_STEPS // total > told:
            progress.update("transformer", done, total, "bytes")
    return state


def _fetched(shard: safe_open, name: str, folder: Path) -> Tensor:
    """A tensor of a file that is still open, whatever has its name now."""
    with _explained(folder):
        return shard.get_tensor(name)


def read_pth(path: Path) -> dict[str, Tensor]:
    """A plain state dict from a torch file, mapped where the file's format allows it. Raises `ModelFilesError`."""
    with _explained(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the way to refusing a file
        try:
            state = torch.load(path, map_location="cpu", mmap=zipfile.is_zipfile(path), weights_only=True)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # reading a damaged pickle can raise anything
            raise _damaged(path, str(error).split("\n")[0]) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise _damaged(path, "it does not hold a table of tensors")
    return state


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, mapped. Raises `ModelFilesError`."""
    with _explained(path), safe_open(path, framework="pt", device="cpu") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping


def assign(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Make the tensors of `state` the parameters of `module` (built on the meta device) and freeze it for inference."""
    module.load_state_dict(state, strict=True, assign=True)
    module.requires_grad_(False)
    module.eval()


def check_names(expected: Mapping[str, Tensor], found: Mapping[str, Tensor | _Shape], path: Path) -> None:
    """Raises `ModelFilesError`, naming the first few keys, unless both have the same names and shapes."""
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    wrong = [
        f"{name} {list(found[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and tuple(found[name].shape) != tuple(tensor.shape)
    ]
    problems = [
        f"{len(names)} {kind} ({', '.join(names[:_SHOWN_KEYS])}{', …' if len(names) > _SHOWN_KEYS else ''})"
        for kind, names in (("missing", missing), ("unknown", extra), ("of another shape", wrong))
        if names
    ]
    if problems:
        raise ModelFilesError(
            f"The weights in {path} are not those of this model: tensors {'; '.join(problems)}.",
            code="model_files.wrong_weights",
            hint="Check with `standin models verify`, or choose the folder of SoulX-FlashTalk-14B.",
        )


class _Shape:
    """The shape of a tensor in a file, read when asked for."""

    def __init__(self, shard, name: str) -> None:
        self._shard, self._name = shard, name

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._shard.get_slice(self._name).get_shape())


def _open_shards(files: Sequence[Path]) -> dict[str, safe_open]:
    """Tensor name -> opened file that holds it, in the order of the files; closed when nobody refers to it."""
    where: dict[str, safe_open] = {}
    for path in files:
        with _explained(path):
            shard = safe_open(path, framework="pt", device="cpu")
        where.update(dict.fromkeys(shard.keys(), shard))
    return where


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns what the readers raise for a missing or damaged file into a `ModelFilesError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise ModelFilesError(
            f"The model's file {path} is missing.",
            code="model_files.missing",
            hint="Download the model with `standin models download flashtalk-14b`, or choose another folder.",
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, SafetensorError) as error:
        raise _damaged(path, str(error).split("\n")[0]) from error


def _damaged(path: Path, why: str) -> ModelFilesError:
    return ModelFilesError(
        f"The model's file {path} is damaged or incomplete.",
        code="model_files.damaged",
        hint="Check with `standin models verify`, or download it again.",
        detail=why,
    )


def cast(state: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """The same tensors there and in that precision; whole numbers keep theirs."""
    return {
        name: tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype) for name, tensor in state.items()
    }
