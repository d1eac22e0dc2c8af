"""How long the video VAE takes on this GPU in each of its forms: `python tests/benchmarks/vae_speed.py [--small]`.

Prints a JSON object a line. First forms, which take turns: seconds for decoding a chunk of nine latent frames and for
encoding five frames at 768x448 in bfloat16, and those that the host takes to ask for it; the largest difference to the
plain form, of pictures in [-1, 1]. Then kernels at full resolution: microseconds, and GB/s of what they have to move.
Random weights. --small tries all but graphs with a small model on the CPU, where the figures mean nothing.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.generators.flashtalk.graphs import CudaRecorder
from engine.generators.flashtalk.kernels.catalog import VAE_KERNELS
from engine.generators.flashtalk.kernels.registry import EAGER, Kernels, choose_kernels, tensors_of
from engine.generators.flashtalk.kernels.vae_norm import ADD_BIAS, ADD_NORM_SILU_JOIN, NORM_SILU, NORM_SILU_JOIN
from engine.generators.flashtalk.vae import Vae
from engine.generators.flashtalk.vae_coders import VaeConfig
from engine.generators.flashtalk.vae_graphs import record_decoder

ROUNDS, KERNEL_RUNS = 5, 20
LATENTS, FRAMES = 9, 5


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Where it is measured, and on what."""

    device: torch.device
    dtype: torch.dtype
    latents: Tensor
    video: Tensor

    def wait(self) -> None:
        """Until the device has done everything."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def scene_of(is_small: bool) -> Scene:
    """768x448 on the GPU, or something small."""
    device, dtype = (torch.device("cpu"), torch.float32) if is_small else (torch.device("cuda"), torch.bfloat16)
    rows, columns = (4, 3) if is_small else (96, 56)
    latents = torch.randn(16, LATENTS, rows, columns, device=device)
    video = torch.rand(1, 3, FRAMES, 8 * rows, 8 * columns, device=device) * 2 - 1
    return Scene(device=device, dtype=dtype, latents=latents, video=video)


def random_vae(scene: Scene) -> Vae:
    """Weights of order one per output, channels last."""
    torch.manual_seed(0)
    with scene.device:
        vae = Vae(VaeConfig(dim=96 if scene.device.type == "cuda" else 8))
    for name, value in vae.named_parameters():
        inputs = value[0].numel()
        drawn = torch.randn_like(value) * (0.2 if inputs == 1 else inputs**-0.5)
        value.data = drawn + 1.0 if name.endswith("gamma") else drawn
    vae = vae.to(scene.dtype).requires_grad_(False).eval()
    vae.use_channels_last()
    return vae


def forms_of(scene: Scene, kernels: Kernels) -> dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor] | None]]:
    """How to decode and to encode, by the name of the form."""
    apart = {name: function for name, function in kernels.active.items() if name != ADD_NORM_SILU_JOIN.name}
    forms: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor] | None]] = {}
    for name, chosen, is_merged in (
        ("plain", EAGER, False),
        ("merged up-sampling", EAGER, True),
        ("kernels, sums apart", Kernels(active=apart), False),
        ("kernels", kernels, False),
        ("kernels, merged up-sampling", kernels, True),
    ):
        vae = random_vae(scene)
        vae.use_kernels(chosen)
        if is_merged:
            vae.merge_upsampling()
        forms[name] = (
            lambda vae=vae: vae.decode_all(scene.latents),
            lambda vae=vae: vae.encode(scene.video),
        )
        if scene.device.type == "cuda" and name in ("plain", "kernels, merged up-sampling"):
            decoder, refused = record_decoder(vae, scene.latents, CudaRecorder(scene.device))
            if decoder is None:
                print(json.dumps({"form": f"{name}, graphs", "refused": refused}), flush=True)
                continue
            decode = decoder.decode
            forms[f"{name}, graphs"] = (lambda decode=decode: torch.cat(list(decode(scene.latents)), dim=2), None)
    return forms


def measured_forms(scene: Scene, kernels: Kernels) -> Iterator[dict]:
    """One row for each form; the first round, in which libraries choose what they do, is left out."""
    forms = forms_of(scene, kernels)
    plain = forms["plain"][0]().float()
    rows = {name: {"form": name, "decode": [], "host": [], "encode": []} for name in forms}
    for number in range(ROUNDS + 1):
        for name, (decode, encode) in forms.items():
            done_s, host_s = _timed(decode, scene)
            encode_s = None if encode is None else _timed(encode, scene)[0]
            if number:
                rows[name]["decode"].append(done_s)
                rows[name]["host"].append(host_s)
                rows[name]["encode"] += [] if encode_s is None else [encode_s]
    for name, row in rows.items():
        figures = {f"{what}_s": statistics.median(row[what]) for what in ("decode", "host", "encode") if row[what]}
        difference = (forms[name][0]().float() - plain).abs().max().item()
        yield {"form": name, **figures, "most_decode_s": max(row["decode"]), "largest_difference": difference}


def _timed(work: Callable[[], Tensor], scene: Scene) -> tuple[float, float]:
    scene.wait()
    started_s = time.perf_counter()
    work()
    host_s = time.perf_counter() - started_s
    scene.wait()
    return time.perf_counter() - started_s, host_s


def measured_kernels(scene: Scene, kernels: Kernels) -> Iterator[dict]:
    """One row for each kernel that is fused here, beside its plain form."""
    width, (_, _, _, rows, columns) = (96 if scene.device.type == "cuda" else 8), scene.video.shape

    def drawn(frames: int) -> Tensor:
        x = torch.randn(1, width, frames, rows, columns, device=scene.device, dtype=scene.dtype)
        return x.contiguous(memory_format=torch.channels_last_3d)

    x, inner, before = drawn(4), drawn(4), drawn(2)
    gamma, bias = torch.ones(width, 1, 1, 1, device=scene.device, dtype=scene.dtype), x.new_zeros(width).float()
    arguments = {
        NORM_SILU: (x, gamma, bias),
        NORM_SILU_JOIN: (x, before, gamma, bias),
        ADD_BIAS: (inner, x, bias),
        ADD_NORM_SILU_JOIN: (inner, x, bias, before, gamma),
    }
    for kernel, given in arguments.items():
        moved = sum(value.nbytes for value in (*given, *tensors_of(kernel.eager(*given))))
        row: dict = {"kernel": kernel.name, "bytes": moved}
        forms = {"plain": kernel.eager, **({"fused": kernels[kernel]} if kernel in kernels else {})}
        for form, function in forms.items():
            function(*given)
            each_s = [
                _timed(lambda function=function, given=given: function(*given), scene)[0] for _ in range(KERNEL_RUNS)
            ]
            row[f"{form}_us"] = 1e6 * statistics.median(each_s)
            row[f"{form}_gb_per_s"] = moved / row[f"{form}_us"] / 1e3
        yield row


@torch.no_grad()
def main() -> None:
    """All rows, each as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a small model on the CPU, to try this program")
    is_small = parser.parse_args().small
    if not is_small and not torch.cuda.is_available():
        raise SystemExit("This needs a CUDA device, or --small.")
    scene = scene_of(is_small)
    kernels = choose_kernels(VAE_KERNELS, "all", scene.device, scene.dtype)
    for row in itertools.chain(measured_forms(scene, kernels), measured_kernels(scene, kernels)):
        print(json.dumps(row), flush=True)
    if kernels.refused:
        print(json.dumps({"refused": dict(kernels.refused)}))


if __name__ == "__main__":
    main()
