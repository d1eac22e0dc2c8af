"""Seconds per chunk of the reference implementation and of ours, on one GPU, interleaved, from the same random weights.

    git clone https://github.com/Soul-AILab/SoulX-FlashTalk reference      (688982e is the commit that this was read at)
    pip install -r reference/requirements.txt flash-attn
    python tests/gpu/compare_reference.py --reference reference [--chunks 10] [--json] [KEY=VALUE ...]

KEY=VALUE are options of ours (precision=fp8, kernels=all, graphs=on). The reference runs its own `generate` and
`preprocess_audio`, compiled as it is published unless --eager. Of its libraries, flash-attn and xformers are replaced
by PyTorch's own attention where they are missing, which is said in the result, because it changes its speed.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import statistics
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
import torch
import torch.nn.functional as F

from engine.generators.flashtalk.bench import Noise
from engine.generators.flashtalk.config import DiTConfig
from engine.generators.flashtalk.generator import FlashTalkGenerator
from engine.generators.flashtalk.options import FlashTalkOptions
from engine.generators.flashtalk.random_models import Sizes, random_features, random_models
from engine.generators.flashtalk.speech_encoder import SpeechEncoderConfig
from engine.generators.flashtalk.vae_coders import VaeConfig

WARM_UP = 3
FPS, RATE_HZ, HEARD_S = 25, 16_000, 8
"""Its window of sound is eight seconds, encoded anew for every chunk."""
NEEDED = ("diffusers", "einops", "loguru", "transformers")
OPTIONAL = (
    "xfuser", "xfuser.core", "xfuser.core.distributed", "xformers", "xformers.ops", "optimum", "optimum.quanto",
    "imageio", "skimage", "skimage.color", "pyloudnorm", "decord", "torchvision", "torchvision.transforms", "easydict",
    "ftfy", "cv2", "librosa",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Size:
    """Of the model; the published one, or a small one to try this program with on a CPU."""

    dit: DiTConfig
    vae: VaeConfig
    speech: SpeechEncoderConfig
    picture: str


PUBLISHED = Size(DiTConfig(), VaeConfig(), SpeechEncoderConfig(), "768x448")
SMALL = Size(
    DiTConfig(dim=96, ffn_dim=128, num_heads=4, num_layers=2, freq_dim=32),
    VaeConfig(dim=8),
    SpeechEncoderConfig(intermediate_size=96),
    "64x64",
)


class Absent(types.ModuleType):
    """A library that is not there: importing from it works, calling it does not."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_arguments: Any, **_options: Any) -> Any:
            raise RuntimeError(f"{self.__name__}.{name} is needed after all: install {self.__name__.split('.')[0]}")

        return missing


def prepare_imports(folder: Path) -> list[str]:
    """Make the reference importable; the names of what stands in for what is missing."""
    for name in NEEDED:
        importlib.import_module(name)
    absent = []
    for name in OPTIONAL:
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = Absent(name)
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, sys.modules[name])
            absent.append(name)
    if "xformers.ops" in absent:
        sys.modules["xformers.ops"].memory_efficient_attention = attend  # type: ignore[attr-defined]
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    return absent


def attend(q, k, v, attn_bias=None, op=None):
    """xformers' attention by PyTorch's: [batch, tokens, heads, width]."""
    assert attn_bias is None
    return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


def flash_by_torch(q, k, v, k_lens=None, dtype=torch.bfloat16, **_options):
    """flash-attn by PyTorch's, for one sequence whose keys all count."""
    kind, wide = q.dtype, dtype if q.is_cuda else torch.float32
    return attend(*(x.to(wide) for x in (q, k, v))).to(kind)


def has_flash_attention() -> bool:
    return any(importlib.util.find_spec(name) for name in ("flash_attn", "flash_attn_interface"))


def reference_pipeline(size: Size, ours: Any, device: torch.device, folder: Path, is_compiled: bool) -> Any:
    """Its pipeline, put together from random weights instead of files: those of `ours` where both have them."""
    pipeline_module = importlib.import_module("flash_talk.src.pipeline.flash_talk_pipeline")
    if not has_flash_attention():
        for name in ("infinite_talk.modules.multitalk_model", "wan.modules.model", "wan.modules.attention"):
            importlib.import_module(f"flash_talk.{name}").flash_attention = flash_by_torch
    dtype = ours.precision.dit
    pipeline = pipeline_module.FlashTalkPipeline.__new__(pipeline_module.FlashTalkPipeline)
    pipeline.device, pipeline.param_dtype, pipeline.rank, pipeline.sp_size = device, dtype, 0, 1
    pipeline.cpu_offload, pipeline.use_usp = False, False
    pipeline.num_timesteps, pipeline.use_timestep_transform = 1000, True
    pipeline.vae_stride, pipeline.patch_size = (4, 8, 8), (1, 2, 2)
    pipeline.vae = reference_vae(size, ours, device, folder, dtype)
    pipeline.model = reference_dit(size, ours, device, dtype)
    if is_compiled:
        pipeline.model = torch.compile(pipeline.model)
        pipeline.vae.encode = torch.compile(pipeline.vae.encode)
        pipeline.vae.decode = torch.compile(pipeline.vae.decode)
    pipeline.audio_encoder, pipeline.wav2vec_feature_extractor = reference_speech(size, device)
    return pipeline


def reference_vae(size: Size, ours: Any, device: torch.device, folder: Path, dtype: torch.dtype) -> Any:
    vae_module = importlib.import_module("flash_talk.wan.modules.vae")
    path = folder / "vae.pth"
    torch.save({name: tensor.contiguous().cpu() for name, tensor in ours.vae.state_dict().items()}, path)
    build = vae_module._video_vae
    vae_module._video_vae = lambda **options: build(**(options | {"dim": size.vae.dim}))
    return vae_module.WanVAE(vae_path=str(path), dtype=dtype, device=device)


def reference_dit(size: Size, ours: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """The same tensors as ours where ours has them under that name; random ones elsewhere."""
    model_module = importlib.import_module("flash_talk.infinite_talk.modules.multitalk_model")
    names = (
        "in_dim", "dim", "ffn_dim", "freq_dim", "text_dim", "out_dim", "num_heads", "num_layers", "text_len", "eps",
        "audio_window", "intermediate_dim", "output_dim", "context_tokens", "vae_scale",
    )  # fmt: skip
    with torch.device("meta"):
        model = model_module.WanModel(
            **{name: getattr(size.dit, name) for name in names if hasattr(size.dit, name)}, weight_init=False
        )
    have = ours.dit.state_dict()
    state = {}
    for name, tensor in model.state_dict().items():
        own = have.get(name)
        if own is not None and own.shape == tensor.shape:
            state[name] = own.to(device, dtype)
        else:
            fan_in = tensor[0].numel() if tensor.dim() > 1 else 0
            state[name] = torch.randn(tensor.shape, device=device, dtype=dtype).mul_(fan_in**-0.5 if fan_in else 0.1)
    model.load_state_dict(state, assign=True)
    for name, buffer in list(model.named_buffers()):
        if buffer.is_meta:
            raise RuntimeError(f"the reference keeps {name} outside its weights")
    if model.freqs.is_meta:
        heads = size.dit.dim // size.dit.num_heads
        rope = model_module.rope_params
        widths = (heads - 4 * (heads // 6), 2 * (heads // 6), 2 * (heads // 6))
        model.freqs = torch.cat([rope(1024, width) for width in widths], dim=1)
    return model.eval().requires_grad_(False)


def reference_speech(size: Size, device: torch.device) -> tuple[Any, Any]:
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor

    module = importlib.import_module("flash_talk.infinite_talk.audio_analysis.wav2vec2")
    values = {field.name: getattr(size.speech, field.name) for field in dataclasses.fields(size.speech)}
    values.pop("do_normalize", None)
    config = Wav2Vec2Config(**values, attn_implementation="eager")
    encoder = module.Wav2Vec2Model(config).to(device).eval().requires_grad_(False)
    return WithLayers(encoder), Wav2Vec2FeatureExtractor(do_normalize=False, sampling_rate=RATE_HZ)


class WithLayers:
    """Its speech encoder, whose hidden layers transformers 5 does not hand out any more."""

    def __init__(self, encoder: Any) -> None:
        self._encoder, self.hidden_states = encoder, []
        for layer in encoder.encoder.layers:
            layer.register_forward_hook(self._keep)

    def __call__(self, features: torch.Tensor, **options: Any) -> Any:
        self.hidden_states = [None]
        found = self._encoder(features, **options)
        return self if found.hidden_states is None else found

    def __len__(self) -> int:
        return 1

    def _keep(self, _layer: Any, _given: Any, found: Any) -> None:
        self.hidden_states.append(found[0] if isinstance(found, tuple) else found)


def reference_conditions(pipeline: Any, size: Size, options: FlashTalkOptions) -> None:
    """What its `prepare_params` leaves behind, from a random portrait and prompt."""
    device, dtype, shape = pipeline.device, pipeline.param_dtype, options.shape
    module = importlib.import_module("flash_talk.src.pipeline.flash_talk_pipeline")
    frames, rows, columns = shape.latent[1:]
    pipeline.frame_num, pipeline.motion_frames_num = shape.frames, 5
    pipeline.target_h, pipeline.target_w = shape.height, shape.width
    pipeline.lat_h, pipeline.lat_w = rows, columns
    portrait = (torch.rand(1, 3, 1, shape.height, shape.width, device=device) * 2 - 1).to(dtype)
    pipeline.cond_image_tensor = pipeline.original_color_reference = portrait
    pipeline.color_correction_strength = 1.0
    pipeline.generator = torch.Generator(device=device).manual_seed(0)
    steps = {4: [1000, 750, 500, 250], 2: [1000, 500]}[int(options.steps)]
    moments = [torch.tensor([float(moment)], device=device) for moment in [*steps, 0]]
    pipeline.timesteps = [module.timestep_transform(moment, shift=5.0) for moment in moments]
    pipeline.arg_c = {
        "context": [torch.randn(24, size.dit.text_dim, device=device, dtype=dtype)],
        "clip_fea": torch.randn(1, 257, 1280, device=device, dtype=dtype),
        "seq_len": shape.tokens,
        "y": torch.randn(1, 20, frames, rows, columns, device=device, dtype=dtype),
        "ref_target_masks": None,
    }
    pipeline.latent_motion_frames = pipeline.vae.encode(portrait)


def reference_chunk(pipeline: Any, sound: np.ndarray, frames: int) -> torch.Tensor:
    """Hear eight seconds, take the newest `frames` frames' windows, generate, and make bytes of it on the host."""
    embedding = pipeline.preprocess_audio(sound, sr=RATE_HZ, fps=FPS)
    last = embedding.shape[0]
    centres = torch.arange(last - frames, last).unsqueeze(1) + torch.arange(-2, 3).unsqueeze(0)
    window = embedding[centres.clamp(0, last - 1)][None].contiguous()
    video = pipeline.generate(window)
    return ((video + 1) / 2).permute(1, 2, 3, 0).clip(0, 1).mul(255).contiguous().cpu()


def compare(arguments: argparse.Namespace, options: FlashTalkOptions, size: Size, absent: list[str]) -> dict[str, Any]:
    """Both, chunk about chunk."""
    device = torch.device(options.device if options.device != "auto" else "cuda")
    ours = random_models(options, device, Sizes(config=size.dit, vae=size.vae, speech=size.speech))
    generator = FlashTalkGenerator(seed=0, **options.as_dict())
    generator.prepare_from(ours, *random_features(size.dit, options.shape, device))
    with tempfile.TemporaryDirectory() as folder:
        pipeline = reference_pipeline(size, ours, device, Path(folder), not arguments.eager)
    reference_conditions(pipeline, size, options)
    noise, random = Noise(generator.spec), np.random.default_rng(0)
    sound = random.normal(0, 0.1, HEARD_S * RATE_HZ).astype(np.float32)
    times: dict[str, list[float]] = {"reference": [], "ours": []}
    for index in range(WARM_UP + arguments.chunks):
        for name, work in (
            ("reference", lambda: reference_chunk(pipeline, sound, options.shape.frames)),
            ("ours", lambda index=index: generator.generate(noise.chunk(index), noise)),
        ):
            wait(device)
            started_s = time.perf_counter()
            work()
            wait(device)
            if index >= WARM_UP:
                times[name].append(time.perf_counter() - started_s)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "options": {name: value for name, value in options.as_dict().items() if value != ""},
        "reference": {
            "is_compiled": not arguments.eager,
            "attention": "its own" if has_flash_attention() else "PyTorch's, for want of flash-attn",
            "stand_ins": absent,
        },
        "chunk_s": {name: round(seconds, 4) for name, seconds in medians.items()},
        "chunks": arguments.chunks,
        "ratio": round(medians["reference"] / medians["ours"], 3),
    }


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, metavar="DIR")
    parser.add_argument("--chunks", type=int, default=10, metavar="N")
    parser.add_argument("--eager", action="store_true", help="the reference without torch.compile")
    parser.add_argument("--small", action="store_true", help="small models on the CPU, to try this program")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_args()
    size = SMALL if arguments.small else PUBLISHED
    values: dict[str, Any] = {"size": size.picture} | dict(pair.split("=", 1) for pair in arguments.options)
    values["steps"] = int(values.get("steps", 4))
    if arguments.small:
        values["device"] = "cpu"
        torch.cuda.synchronize = lambda *_: None  # type: ignore[assignment]
        torch.cuda.current_device = lambda: 0  # type: ignore[assignment]
    elif not torch.cuda.is_available():
        print("There is no GPU here.", file=sys.stderr)
        return 1
    options = FlashTalkOptions.of(values)
    absent = prepare_imports(arguments.reference.resolve())
    with torch.no_grad(), open(os.devnull, "w") as nowhere:
        shown, sys.stdout = sys.stdout, nowhere  # it prints each step's time
        try:
            result = compare(arguments, options, size, absent)
        finally:
            sys.stdout = shown
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        print(f"{result['device']}: reference {result['chunk_s']['reference']:.3f} s, ours "
              f"{result['chunk_s']['ours']:.3f} s a chunk: {result['ratio']:.2f} times as fast "
              f"(reference's attention: {result['reference']['attention']})")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
