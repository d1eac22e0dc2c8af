"""Errors and times of the transformer's kernels and approximations, as the tables in docs/benchmarks.md.

python tests/benchmarks/kernels.py errors      fused, plain and compiled forms against float64, in bfloat16
python tests/benchmarks/kernels.py passes      reads and writes of all tokens, plain and fused, at 768x448; on no device
python tests/benchmarks/kernels.py passes8     the same of what makes tokens 8-bit
python tests/benchmarks/kernels.py attention   8-bit attention against float32
python tests/benchmarks/kernels.py motion      keys and values of the motion frames kept from an earlier step
python tests/benchmarks/kernels.py steps DIR   by how much the four steps differ in a checkpoint, for that
python tests/benchmarks/kernels.py speed       microseconds and GB/s at 768x448; needs a GPU

On a GPU where there is one; else fused kernels run in Triton's interpreter. With --json, one JSON object on one line.
"""

import importlib.util
import json
import os
import shutil
import statistics
import sys
from pathlib import Path

if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.generators.flashtalk.attention import _sdpa, choose_attention, model_like
from engine.generators.flashtalk.config import DiTConfig
from engine.generators.flashtalk.kernels.catalog import DIT_KERNELS
from engine.generators.flashtalk.kernels.quantize import HIDDEN, QUANTIZING
from engine.generators.flashtalk.kernels.registry import errors_of, tensors_of
from engine.generators.flashtalk.kernels.samples import HEADS, WIDTH
from engine.generators.flashtalk.rope import rotary_table
from engine.generators.flashtalk.sampler import timesteps
from engine.generators.flashtalk.transformer import DiT
from engine.generators.flashtalk.weights import read_safetensors
from engine.parallel.group import LocalGroup

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TOKENS = 12096
RUNS = 50
MIDDLE = DiTConfig(
    dim=640, ffn_dim=1728, num_heads=5, num_layers=8, text_dim=64, text_len=32, intermediate_dim=32, output_dim=96,
    context_tokens=8, img_emb_in_dim=64, audio_blocks=3, audio_channels=32,
)  # fmt: skip
GRID = (9, 6, 4)
EIGHT_BITS = [(part, kernel) for kernels in QUANTIZING.values() for part, kernel in kernels.items()]
EVERY = (*DIT_KERNELS, *(kernel for _, kernel in EIGHT_BITS))


def errors() -> list[dict]:
    """One row for each kernel and form."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        path = Path(__file__).parents[1] / "fixtures" / "triton_rounding.py"
        spec = importlib.util.spec_from_file_location("triton_rounding", path)
        rounding = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(rounding)
        rounding.round_to_nearest()
    rows = []
    for kernel in EVERY:
        # Triton's interpreter cannot multiply matrices of bfloat16.
        dtype = torch.float32 if kernel.name == "attend_two" and DEVICE.type == "cpu" else torch.bfloat16
        arguments = kernel.samples(torch.Generator(DEVICE).manual_seed(1), DEVICE, dtype)[0]
        function = kernel.exact or kernel.eager
        exact = tensors_of(function(*(x.double() if isinstance(x, torch.Tensor) else x for x in arguments)))
        plain = _worst(kernel.values(tensors_of(kernel.eager(*arguments))), exact)
        row = {
            "kernel": kernel.name,
            "dtype": str(dtype).removeprefix("torch."),
            "plain": plain[0],
            "plain_largest": plain[1],
        }
        for form, make in (("fused", kernel.load), ("compiled", lambda kernel=kernel: torch.compile(kernel.eager))):
            if form == "compiled" and not kernel.is_compilable:
                continue
            try:
                row[form], row[f"{form}_largest"] = _worst(kernel.values(tensors_of(make()(*arguments))), exact)
            except Exception as error:  # noqa: BLE001 - what cannot be had here is told in the table
                row[f"{form}_failed"] = str(error).strip().split("\n")[0][:100]
        rows.append(row)
    return rows


def _worst(got, exact) -> tuple[float, float]:
    each = [errors_of(one, right) for one, right in zip(got, exact, strict=True)]
    return max(error.relative for error in each), max(error.largest for error in each)


# --------------------------------------------------------------------------------------------------- passes


class _Moved(TorchDispatchMode):
    """Bytes that operations read and write, views apart; on the meta device, where nothing is computed."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        aliases = [value.alias_info for value in func._schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in aliases)
        if not is_view and not any(part in func.name() for part in ("empty", "unsafe_view")):
            written = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
            given = args[1:] if func.overloadpacket.__name__ == "copy_" else args
            read = [x for x in tree_leaves(given) if isinstance(x, torch.Tensor)]
            self.bytes += sum(x.nbytes for x in (*read, *written))
        return out


def _wide_rms_norm(x, weight, eps):
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype) * weight


def _wide_norm_rotary(x, weight, table, heads, eps):
    even, odd = _wide_rms_norm(x, weight, eps).unflatten(-1, (heads, -1)).float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = table
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).to(x.dtype)


def _wide_norm_modulate(x, shift, scale, eps):
    normed = torch.nn.functional.layer_norm(x, x.shape[-1:], eps=eps)
    return torch.addcmul(shift, normed.float(), 1 + scale).to(x.dtype)


def _wide_add_gated(x, branch, gate):
    return torch.addcmul(x.float(), branch.float(), gate).to(x.dtype)


WIDE_COPIES = {
    "norm_rotary": _wide_norm_rotary,
    "norm_modulate": _wide_norm_modulate,
    "add_gated_norm": lambda x, y, gate, weight, bias, eps: torch.nn.functional.layer_norm(
        _wide_add_gated(x, y, gate), x.shape[-1:], weight, bias, eps
    ),
    "add_norm_modulate": lambda x, y, shift, scale, eps: _wide_norm_modulate(x + y, shift, scale, eps),
    "add_gated": _wide_add_gated,
    "rms_norm": _wide_rms_norm,
}
"""The same functions written down as they are specified, with float32 copies of the tokens."""


def passes() -> list[dict]:
    """In units of all tokens' bytes in bfloat16, one read or one write each; matrix products and attention left out."""
    global DEVICE
    DEVICE = torch.device("meta")
    rows, unit = [], TOKENS * WIDTH * 2
    for kernel, (arguments, moved) in zip(DIT_KERNELS, list(_full_size().values())[: len(DIT_KERNELS)], strict=True):
        if kernel.name in ("linear_gelu", "attend_two"):
            continue
        row: dict = {"kernel": kernel.name}
        for form, function in (("wide copies", WIDE_COPIES.get(kernel.name, kernel.eager)), ("plain", kernel.eager)):
            with _Moved() as counted:
                function(*arguments)
            row[form] = counted.bytes / unit
        rows.append(row | {"fused": moved / unit})
    return rows


def passes8() -> list[dict]:
    """The same for 8 bits: by the plain forms of both parts, by the fused form of the first (GELU has none) and the
    plain form of the second, by both in one."""
    global DEVICE
    DEVICE = torch.device("meta")
    rows, unit, sizes = [], TOKENS * WIDTH * 2, _full_size()
    for part, kernel in EIGHT_BITS:
        arguments, moved = sizes[kernel.name]
        row: dict = {"kernel": kernel.name, "plain": _moved(kernel.eager, arguments) / unit}
        if part in sizes:
            tokens = (torch.empty(TOKENS, WIDTH, device=DEVICE, dtype=torch.bfloat16),)
            apart = sizes[part][1] + _moved(QUANTIZING[kernel.name.rpartition("_")[2]]["rows"].eager, tokens)
            row["apart"] = apart / unit
        rows.append(row | {"fused": moved / unit})
    return rows


def _moved(function, arguments) -> int:
    with _Moved() as counted:
        function(*arguments)
    return counted.bytes


# ------------------------------------------------------------------------------------------------ attention


def attention() -> list[dict]:
    """8-bit attention on drawn tensors, and on queries, keys and values of blocks of a random transformer."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    cases = {f"drawn, {n} tokens": model_like(n, 4, generator, DEVICE, torch.float32) for n in (500, 2000, 4000)}
    cases |= {f"random transformer, block {n}": qkv for n, qkv in _queries_keys_values().items()}
    names = [name for name in ("emulated8", "sage") if name == "emulated8" or DEVICE.type == "cuda"]
    rows = []
    for case, (q, k, v) in cases.items():
        exact = _sdpa(q.double(), k.double(), v.double())
        narrow = [x.bfloat16() for x in (q, k, v)]
        rows.append({"case": case, "bfloat16": _relative(_sdpa(*narrow), exact)})
        for name in names:
            got = choose_attention(DEVICE, torch.bfloat16, name)(*narrow)
            rows[-1][name] = _relative(got, exact)
            rows[-1][f"{name}_cosine"] = torch.cosine_similarity(got.double().flatten(), exact.flatten(), 0).item()
    return rows


def _queries_keys_values():
    seen = []

    class Watching(LocalGroup):
        def attend(self, q, k, v, attention):
            seen.append((q.clone(), k.clone(), v.clone()))
            return attention(q, k, v)

    dit, stream, chunk, latents = _random_scene(0)
    dit(latents, 1, stream, chunk, Watching(), choose_attention(DEVICE, torch.float32))
    return {number: seen[number - 1] for number in (1, len(seen) // 2, len(seen))}


def _random_scene(seed: int, dtype=torch.float32, spread: float = 1.0):
    """A transformer of middle size with gates of order one, and conditions at the four published steps, whose part of
    the modulation is `spread` times as large as the learned part."""
    torch.manual_seed(seed)
    dit = DiT(MIDDLE).to(DEVICE).requires_grad_(False)
    for name, parameter in dit.named_parameters():
        if "modulation" in name:
            parameter.normal_(0.0, 0.5)
        elif name.startswith("time_"):
            parameter.normal_(0.0, 1.5 * parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.1)
            if name.startswith("time_projection"):
                parameter.mul_(spread)
    dit = dit.to(dtype)
    exact = torch.promote_types(dtype, torch.float32)

    def drawn(*shape, dtype=dtype):
        return torch.randn(*shape, device=DEVICE).to(dtype)

    frames, rows, columns = GRID
    stream = dit.stream_conditions(
        drawn(12, MIDDLE.text_dim), drawn(17, MIDDLE.img_emb_in_dim),
        drawn(20, frames, 2 * rows, 2 * columns, dtype=exact), timesteps(4)[:-1].to(DEVICE, exact), LocalGroup(),
    )  # fmt: skip
    chunk = dit.chunk_conditions(drawn(1, 5, 3, 32), drawn(frames - 1, 8, 3, 32))
    return dit, stream, chunk, drawn(16, frames, 2 * rows, 2 * columns, dtype=exact)


def _relative(got, exact) -> float:
    return ((got.double() - exact.double()).norm() / exact.double().norm()).item()


# --------------------------------------------------------------------------------------------------- motion


class _Kept(LocalGroup):
    """Keys and values of the first tokens are those of the last step that was computed in full."""

    def __init__(self, tokens: int):
        self.tokens, self.kept, self.layer, self.is_full = tokens, {}, 0, True

    def begin(self, is_full: bool):
        self.layer, self.is_full = 0, is_full

    def attend(self, q, k, v, attention):
        self.layer += 1
        if self.is_full:
            self.kept[self.layer] = k[: self.tokens].clone(), v[: self.tokens].clone()
        else:
            k, v = (
                torch.cat((old, new[self.tokens :])) for old, new in zip(self.kept[self.layer], (k, v), strict=True)
            )
        return attention(q, k, v)


def motion() -> list[dict]:
    """What keeping them costs in velocity and in the chunk's latents against all of it in float64: by which steps are
    computed in full, and by how much the steps differ; and what bfloat16 costs, for comparison."""
    rows = []
    for spread in (1.0, 0.3, 0.1, 0.0):
        scene = _random_scene(0, torch.float64, spread)
        exact = _denoised(scene, LocalGroup(), (0, 1, 2, 3))
        row: dict = {"steps differ by": _difference(scene[1].modulation)}
        narrow = _denoised(_random_scene(0, torch.bfloat16, spread), LocalGroup(), (0, 1, 2, 3))
        row["bfloat16, latents"] = _relative(narrow[1], exact[1])
        for full in ((0,), (0, 2)):
            kept = _denoised(scene, _Kept(2 * GRID[1] * GRID[2]), full)
            name = "full: " + ", ".join(str(step + 1) for step in full)
            each = [_relative(b, a) for a, b in zip(exact[0], kept[0], strict=True)]
            row |= {f"{name}, velocity": max(each), f"{name}, latents": _relative(kept[1], exact[1])}
        rows.append(row)
    return rows


def _difference(modulation) -> float:
    """How much each number of the blocks' modulation [steps, layers, 6, dim] varies over the steps, relative to how
    much all of them do."""
    return (modulation.std(dim=0).mean() / modulation.std()).item()


def steps(folder: str) -> list[dict]:
    """Of the checkpoint in `folder`; reads only what makes the modulation."""
    config = DiTConfig.from_dict(json.loads(Path(folder, "config.json").read_text(encoding="utf-8")))
    with torch.device("meta"):
        dit = DiT(config)
    for path in Path(folder).glob("*.safetensors"):
        found = {name: x for name, x in read_safetensors(path).items() if "time_" in name or "modulation" in name}
        dit.load_state_dict(found, strict=False, assign=True)
    return [{"steps differ by": _difference(dit.embed_time(timesteps(4)[:-1])[0])}]


def _denoised(scene, group, full) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The velocities of the four steps on the way, each at this run's own latents, and the chunk's latents."""
    dit, stream, chunk, start = scene
    attention = choose_attention(DEVICE, dit.dtype)
    tau = (timesteps(4) / 1000).tolist()
    fixed, latents = start[:, :2].clone(), start
    velocities = []
    for step in range(4):
        if isinstance(group, _Kept):
            group.begin(step in full)
        velocity = dit(latents, step, stream, chunk, group, attention, 2)
        velocities.append(velocity[:, 2:])
        noise = torch.randn(latents.shape, generator=torch.Generator(DEVICE).manual_seed(step), device=DEVICE)
        clean = latents - velocity * tau[step]
        latents = torch.cat((fixed, (clean * (1 - tau[step + 1]) + noise * tau[step + 1])[:, 2:]), dim=1)
    return velocities, latents[:, 2:]


# ---------------------------------------------------------------------------------------------------- speed


def speed() -> list[dict]:
    """Medians over runs on tensors of a chunk at 768x448, which no cache holds."""
    if DEVICE.type != "cuda":
        raise SystemExit("speed needs a CUDA device")
    rows = []
    for kernel, (arguments, moved) in zip(EVERY, _full_size().values(), strict=True):
        row = {"kernel": kernel.name, "bytes": moved}
        forms = {"plain": lambda kernel=kernel: kernel.eager, "fused": kernel.load}
        if kernel.is_compilable:
            forms["compiled"] = lambda kernel=kernel: torch.compile(kernel.eager, dynamic=False)
        for form, make in forms.items():
            try:
                row[f"{form}_us"] = _median_us(make(), arguments)
                row[f"{form}_gb_per_s"] = moved / row[f"{form}_us"] / 1e3
            except Exception as error:  # noqa: BLE001 - a form that fails must not hide the others
                row[f"{form}_failed"] = str(error).strip().split("\n")[0][:200]
        rows.append(row)
    return rows


def _full_size() -> dict:
    """Arguments of every kernel in the catalogue's order, and the bytes that it must read and write."""

    def tokens(width=WIDTH):
        return torch.randn(TOKENS, width, device=DEVICE, dtype=torch.bfloat16)

    def heads(count):
        return torch.randn(count, HEADS, WIDTH // HEADS, device=DEVICE, dtype=torch.bfloat16)

    row = [torch.randn(WIDTH, device=DEVICE) for _ in range(3)]
    weight = row[0].bfloat16()
    x, branch = tokens(), tokens()
    table = rotary_table((9, 48, 28), WIDTH // HEADS).to(DEVICE)
    wide = torch.randn(HIDDEN, WIDTH, device=DEVICE, dtype=torch.bfloat16) * WIDTH**-0.5
    one = x.nbytes
    hidden = tokens(HIDDEN)
    sizes = {
        "norm_rotary": ((tokens(3 * WIDTH)[:, :WIDTH], weight, table, HEADS, 1e-6), 2 * one + table.nbytes),
        "norm_modulate": ((x, row[0], row[1], 1e-6), 2 * one),
        "add_gated_norm": ((x, branch, row[0], weight, weight, 1e-6), 4 * one),
        "add_norm": ((x, branch, weight, weight, 1e-6), 4 * one),
        "add_norm_modulate": ((x, branch, row[0], row[1], 1e-6), 4 * one),
        "add_gated": ((x, branch, row[0]), 3 * one),
        "rms_norm": ((x, weight, 1e-6), 2 * one),
        "attend_two": ((heads(TOKENS), heads(24), heads(24), row[0][:24], heads(257), heads(257)), 2 * one),
        "linear_gelu": ((x, wide, wide[:, 0].contiguous()), one + wide.nbytes + 2 * TOKENS * HIDDEN),
    }
    for part, kernel in EIGHT_BITS:
        if part in sizes:  # 8 bits instead of 16 are written
            arguments, moved = sizes[part][0], sizes[part][1] - one // 2
        else:
            arguments = ({"gelu": hidden, "rows": x}[part],)
            moved = arguments[0].nbytes * 3 // 2
        sizes[kernel.name] = (arguments, moved + 4 * TOKENS)
    return sizes


def _median_us(function, arguments) -> float:
    for _ in range(5):
        function(*arguments)
    times = []
    for _ in range(RUNS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        function(*arguments)
        end.record()
        times.append((begin, end))
    torch.cuda.synchronize()
    return 1000 * statistics.median(begin.elapsed_time(end) for begin, end in times)


def _print(rows: list[dict]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for row in rows:
        cells = (row.get(name, "") for name in columns)
        print("| " + " | ".join(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells) + " |")


@torch.no_grad()
def main(arguments: list[str]) -> None:
    """Print one table."""
    tables = {
        "errors": errors,
        "passes": passes,
        "passes8": passes8,
        "attention": attention,
        "motion": motion,
        "steps": lambda: steps(arguments[-1]),
        "speed": speed,
    }
    names = [name for name in arguments if name in tables]
    if len(names) != 1:
        raise SystemExit(__doc__)
    rows = tables[names[0]]()
    if "--json" in arguments:
        print(json.dumps({names[0]: rows, "device": str(DEVICE), "torch": torch.__version__}))
    else:
        _print(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
