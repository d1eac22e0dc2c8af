"""What several ranks send, repeat and would take, as the tables in docs/benchmarks.md.

python tests/benchmarks/ranks.py counted       1, 2 and 4 real gloo ranks with a small model
python tests/benchmarks/ranks.py published     the 14B model on 1, 2, 4 and 8 ranks, counted on no device
python tests/benchmarks/ranks.py predicted     seconds per chunk on H100 and H200, from published figures
"""

import importlib.util
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.generators.flashtalk.config import DiTConfig, StreamShape
from engine.parallel.topology import bytes_sent_per_step, plan_ranks

FIXTURES = Path(__file__).parents[1] / "fixtures"
SMALL = {
    "dim": 96,
    "ffn_dim": 128,
    "freq_dim": 32,
    "num_heads": 4,
    "num_layers": 2,
    "text_dim": 24,
    "text_len": 32,
    "intermediate_dim": 8,
    "output_dim": 40,
    "img_emb_in_dim": 32,
    "audio_channels": 32,
}
SMALL_SHAPE = {"height": 128, "width": 64, "frames": 9}
WORLDS = (1, 2, 4, 8)
STEPS = 4
TERA, GIGA, MEGA = 1e12, 1e9, 1e6


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One card and the link between two of them: public figures, see docs/benchmarks.md."""

    name: str
    memory_bytes_per_s: float
    link_bytes_per_s: float
    linear_flops_per_s: float = 720 * TERA
    attention_flops_per_s: float = 630 * TERA
    vae_flops_per_s: float = 190 * TERA
    memory_share: float = 0.9
    link_share: float = 0.75
    call_s: float = 20e-6
    exchange_s: float = 30e-6


GPUS = (
    Gpu(name="H200, NVLink", memory_bytes_per_s=4.8e12, link_bytes_per_s=450 * GIGA),
    Gpu(name="H100, NVLink", memory_bytes_per_s=3.35e12, link_bytes_per_s=450 * GIGA),
    Gpu(name="H100, PCIe 5 x16", memory_bytes_per_s=3.35e12, link_bytes_per_s=50 * GIGA),
)
HIDDEN_PASSES = 14
"""Reads and writes of the tokens [L, dim] in each layer that no product or attention hides."""
PACKING_PASSES = 8
"""More of them with several ranks: q, k, v to where they are sent from, and the result back in its own order."""
COLOUR_PASSES = 25
SPEECH_S = 0.040
"""Loudness, speech encoder, their launches: by rank 0, while the others wait."""


def load(name):
    spec = importlib.util.spec_from_file_location(name, FIXTURES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def counted() -> None:
    """Bytes that rank 0 sends in a step and for a latent frame, from outside, by the program, by the formula."""
    pools = load("rank_pool")
    shape, layers, dim = StreamShape(**SMALL_SHAPE), SMALL["num_layers"], SMALL["dim"]
    print(
        "| ranks | heads x ring | bytes/step counted | by the program | formula | all-to-all/block | ring/block", end=""
    )
    print(" | gathers/step | exchanges/latent frame | bytes/latent frame |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for world, ulysses in ((1, 1), (2, 2), (2, 1), (4, 4), (4, 2), (4, 1)):
        plan = plan_ranks(world=world, heads=4, tokens=shape.tokens, latent_rows=shape.latent[2], ulysses=ulysses)
        with tempfile.TemporaryDirectory() as folder:
            pool = pools.RankPool(world, Path(folder))
            arguments = {"config": SMALL, "vae_dim": 8, "shape": SMALL_SHAPE, "ulysses": ulysses}
            parts = pool.run(FIXTURES / "rank_costs.py", "count", arguments)[0]
            pool.close()
        calls, sent, later = parts["step"]["calls"], parts["step"]["bytes"], parts["later"]
        gathered = sent["all_gather"]
        formula = bytes_sent_per_step(plan, dim=dim, layers=layers, item_bytes=4)
        cells = (
            sum(sent.values()) - gathered,
            parts["step"]["counted_by_program"] - gathered,
            formula,
            calls.get("all_to_all", 0) // layers,
            calls.get("exchange", 0) // layers,
            calls["all_gather"],
            later["calls"].get("exchange", 0),
            later["bytes"].get("exchange", 0),
        )
        print(f"| {world} | {ulysses} x {plan.ring} | " + " | ".join(f"{cell:,}" for cell in cells) + " |")


def rank_costs() -> dict:
    """Costs by number of ranks of a rank with two neighbours where there is one; bands are equal at this size."""
    costs, shape = load("rank_costs"), StreamShape()
    ranks = [costs.Rank(number=min(1, world - 1), world=world) for world in WORLDS]
    return {rank.world: costs.chunk_costs(rank, DiTConfig(), 96, shape, "meta", torch.bfloat16) for rank in ranks}


def published() -> None:
    """TFLOP of a rank for a chunk of four steps, and what all ranks together do more than one alone."""
    table = rank_costs()
    print("| ranks | steps | decode | encode | voice | all | x ranks / one rank | MB/step | MB/decode | MB/encode |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    alone = None
    for world, parts in table.items():
        step, decode, encode, voice = (flops / TERA for flops in _flops(parts))
        total = step + decode + encode + voice
        alone = alone or total
        sent = [sum(parts[part].bytes.values()) / MEGA for part in ("step", "first", "later", "encode")]
        cells = (f"{step:.1f}", f"{decode:.1f}", f"{encode:.2f}", f"{voice:.2f}", f"{total:.1f}")
        sizes = (f"{sent[0]:.0f}", f"{sent[1] + 8 * sent[2]:.0f}", f"{sent[3]:.1f}")
        print(f"| {world} | {' | '.join(cells)} | {world * total / alone:.4f} | {' | '.join(sizes)} |")


def _flops(parts) -> tuple[int, int, int, int]:
    decode = parts["first"].flops + 8 * parts["later"].flops
    return STEPS * parts["step"].flops, decode, parts["encode"].flops, parts["voice"].flops


def predicted() -> None:
    """Seconds of a chunk by part; a chunk shows 1.12 s."""
    table = rank_costs()
    print("| GPUs | | DiT compute | all-to-all | VAE decode | of it exchanges | VAE encode | rest | chunk | fps |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for gpu in GPUS:
        for world, parts in table.items():
            times = predict(gpu, world, parts)
            total = sum(times.values()) - times["of it exchanges"]
            cells = " | ".join(f"{seconds:.3f}" for seconds in times.values())
            print(f"| {gpu.name} | {world} | {cells} | **{total:.2f}** | {28 / total:.0f} |")


def predict(gpu: Gpu, world: int, parts: dict) -> dict[str, float]:
    """The parts of a chunk in seconds, one after the other: nothing is sent while anything is computed."""
    shape, config = StreamShape(), DiTConfig()
    memory, link = gpu.memory_bytes_per_s * gpu.memory_share, gpu.link_bytes_per_s * gpu.link_share
    step = parts["step"]
    hidden_pass_s = 2 * (shape.tokens / world) * config.dim * 2 * config.num_layers / memory
    passes = HIDDEN_PASSES + (PACKING_PASSES if world > 1 else 0)
    linear_s = (step.flops - step.attention_flops) / gpu.linear_flops_per_s
    compute_s = STEPS * (linear_s + step.attention_flops / gpu.attention_flops_per_s + passes * hidden_pass_s)
    sending_s = STEPS * _sending_s(gpu, link, step)
    exchanges_s = _sending_s(gpu, link, parts["first"]) + 8 * _sending_s(gpu, link, parts["later"])
    _, decode, encode, voice = _flops(parts)
    frames_bytes = 33 * 3 * shape.height * shape.width * 4 / world
    return {
        "DiT compute": compute_s,
        "all-to-all": sending_s,
        "VAE decode": decode / gpu.vae_flops_per_s + exchanges_s,
        "of it exchanges": exchanges_s,
        "VAE encode": encode / gpu.vae_flops_per_s + _sending_s(gpu, link, parts["encode"]),
        "rest": 2 * COLOUR_PASSES * frames_bytes / memory + voice / gpu.linear_flops_per_s + SPEECH_S,
    }


def _sending_s(gpu: Gpu, link: float, cost) -> float:
    """Each call waits for its latency, then for its bytes."""
    each_s = {"exchange": gpu.exchange_s}
    return sum(count * each_s.get(kind, gpu.call_s) for kind, count in cost.calls.items()) + (
        sum(cost.bytes.values()) / link
    )


if __name__ == "__main__":
    commands = {"counted": counted, "published": published, "predicted": predicted}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]]()
