"""What the video VAE moves and how long it takes: `python tests/benchmarks/vae.py moved|time|context`.

`moved` counts on torch's meta device at the published sizes: operations, and bytes that each reads and writes in a pass
of its own. `time` decodes with random weights on this machine's CPU, one form after the other, several times.
`context` says how far the end of a chunk is off when only its last latent frames are decoded.
"""

import argparse
import time

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from engine.generators.flashtalk.kernels.catalog import VAE_KERNELS
from engine.generators.flashtalk.kernels.registry import EAGER, Kernels
from engine.generators.flashtalk.small_decoder import SmallDecoder
from engine.generators.flashtalk.vae import Vae
from engine.generators.flashtalk.vae_coders import VaeConfig

GB = 1e9


class Bytes(TorchDispatchMode):
    """Bytes read and written, of convolutions and of everything else, and the number of operations; views are free."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = self.others = self.operations = 0
        self._is_inside = False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if not self._is_inside and not function.is_view and "empty" not in str(function):
            self._add(args, result, "convolution" in str(function))
        return result

    def fused(self, kernel):
        """`kernel`'s plain form, counted as one pass."""

        def counted(*arguments):
            self._is_inside = True
            try:
                result = kernel.eager(*arguments)
            finally:
                self._is_inside = False
            self._add(arguments, result, False)
            return result

        return counted

    def _add(self, arguments, result, is_convolution: bool) -> None:
        flat = [x for arg in arguments for x in (arg if isinstance(arg, (list, tuple)) else [arg])]
        flat += list(result) if isinstance(result, (list, tuple)) else [result]
        moved = sum(x.numel() * x.element_size() for x in flat if isinstance(x, Tensor))
        self.convolutions += moved * is_convolution
        self.others += moved * (not is_convolution)
        self.operations += 1


def random_vae(dim: int) -> Vae:
    """Weights of order one per output, so that every layer counts."""
    vae, source = Vae(VaeConfig(dim=dim)), torch.Generator().manual_seed(0)
    for name, value in vae.named_parameters():
        inputs = value[0].numel()
        drawn = torch.randn(value.shape, generator=source) * (0.2 if inputs == 1 else inputs**-0.5)
        value.data = drawn + 1.0 if name.endswith("gamma") else drawn
    return vae.requires_grad_(False).eval()


def moved() -> None:
    """One later latent frame and the encoding of five frames at 768x448 in bfloat16."""
    with torch.device("meta"):
        vae = Vae(VaeConfig()).bfloat16()
        vae._scales[torch.device("meta"), torch.float32] = (torch.zeros(1, 16, 1, 1, 1), torch.ones(1, 16, 1, 1, 1))
        latent, video = torch.zeros(16, 1, 96, 56), torch.zeros(1, 3, 5, 768, 448)
    vae.use_channels_last()
    for name in ("plain", "merged", "fused"):
        if name == "merged":
            vae.merge_upsampling()
        for direction in ("decode", "encode"):
            stream = vae.decode_stream()
            vae.use_kernels(EAGER)
            stream.push(latent)
            counter = Bytes()
            if name == "fused":
                vae.use_kernels(Kernels(active={kernel.name: counter.fused(kernel) for kernel in VAE_KERNELS}))
            with counter:
                _ = stream.push(latent) if direction == "decode" else vae.encode(video)
            figures = (counter.convolutions / GB, counter.others / GB)
            moved_gb = f"convolutions {figures[0]:.2f} GB, others {figures[1]:.2f} GB"
            print(f"{name} {direction}: {moved_gb}, {counter.operations} operations")


def timed(runs: int = 5) -> None:
    """Seconds of CPU for three latent frames, the least of several rounds; forms take turns."""
    torch.set_num_threads(1)
    for dim, size in ((8, (8, 6)), (32, (12, 8))):
        plain, merged, small = random_vae(dim), random_vae(dim), SmallDecoder()
        merged.merge_upsampling()
        small.merge_upsampling()
        latents = torch.randn(16, 3, *size, generator=torch.Generator().manual_seed(1))
        forms = {"plain": plain.decode, "merged": merged.decode, "small": small.decode}
        spent: dict[str, list[float]] = {name: [] for name in forms}
        for _ in range(runs):
            for name, decode in forms.items():
                started_s = time.process_time()
                list(decode(latents))
                spent[name].append(time.process_time() - started_s)
        least = ", ".join(f"{name} {min(values):.3f} s" for name, values in spent.items())
        print(f"dim {dim}, {8 * size[0]}x{8 * size[1]}: {least}")


def context() -> None:
    """Root mean square of the error of the last five of 33 frames, of 255 levels, by random weights."""
    vae = random_vae(16)
    latents = torch.randn(16, 9, 4, 4, generator=torch.Generator().manual_seed(1))
    wanted = vae.decode_all(latents)[:, :, -5:]
    for count in range(2, 10):
        error = (vae.decode_tail(latents, 5, context=count) - wanted).square().mean().sqrt() * 127.5
        print(f"{count} latent frames: {error:.3f} levels (spread of the frames {wanted.std() * 127.5:.1f})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("moved", "time", "context"))
    {"moved": moved, "time": timed, "context": context}[parser.parse_args().what]()
