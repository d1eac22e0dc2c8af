"""What each rank does in the rank tests; runs in processes of its own (tests/fixtures/rank_pool.py)."""

import numpy as np
import torch

from engine.generators.flashtalk.attention import choose_attention
from engine.generators.flashtalk.config import DiTConfig, StreamShape
from engine.generators.flashtalk.loudness import normalize_loudness
from engine.generators.flashtalk.sampler import Schedules
from engine.generators.flashtalk.speech_buffer import SpeechBuffer
from engine.generators.flashtalk.speech_encoder import (
    SpeechEncoderConfig,
    audio_slices,
    build_speech_encoder,
    encode_speech,
    rename_speech_encoder,
)
from engine.generators.flashtalk.stream import FlashTalkStream, make_anchor
from engine.generators.flashtalk.transformer import DiT
from engine.generators.flashtalk.vae import Vae
from engine.generators.flashtalk.vae_coders import VaeConfig
from engine.parallel.distributed import DistributedGroup, make_groups
from engine.parallel.tiles import RowBands
from engine.parallel.topology import plan_ranks

_GROUPS = {}


def ranks_for(world, heads, tokens, latent_rows, ulysses=None):
    """(group, bands); process groups are made once for each layout, because making them is slow and they never go."""
    plan = plan_ranks(world=world.size(), heads=heads, tokens=tokens, latent_rows=latent_rows, ulysses=ulysses)
    key = (plan.world, plan.ulysses)
    if key not in _GROUPS:
        _GROUPS[key] = make_groups(plan, world)
    return DistributedGroup(plan, _GROUPS[key]), RowBands(plan, world)


def attention():
    return choose_attention(torch.device("cpu"), torch.float32)


def velocity(world, config, weights, inputs, slots, ulysses=None):
    """One evaluation of the transformer."""
    dit = DiT(DiTConfig.from_dict(config))
    dit.load_state_dict(weights)
    _, frames, rows, columns = inputs["in.x"].shape
    group, _ = ranks_for(world, dit.config.num_heads, frames * rows * columns // 4, rows, ulysses)
    stream = dit.stream_conditions(
        inputs["in.context"], inputs["in.clip_fea"][0], inputs["in.y"][0], inputs["in.t"], group
    )
    return dit(inputs["in.x"], 0, stream, dit.chunk_conditions(*slots), group, attention())


def code(world, dim, weights, video=None, latents=None):
    """Encode `video` and decode `latents`, on bands of rows; whole results on every rank."""
    vae = Vae(VaeConfig(dim=dim))
    vae.load_state_dict(weights)
    rows = latents.shape[2] if latents is not None else video.shape[3] // 8
    _, bands = ranks_for(world, 1, 64, rows)
    if latents is not None:
        return vae.decode_all(latents, tiles=bands)
    return vae.encode(video, tiles=bands)


def shape_of(config) -> StreamShape:
    """The sizes that a pipeline was recorded with."""
    return StreamShape(
        height=config["height"],
        width=config["width"],
        frames=config["frame_num"],
        motion_frames=config["motion_frames_num"],
        fps=config["tgt_fps"],
        audio_history_s=config["cached_audio_duration"],
    )


class Noise:
    """The reference's own draws; a draw that we do not need to make is simply not asked for."""

    def __init__(self, draws):
        self._draws, self.chunk = draws, 0

    def __call__(self, draw):
        return self._draws[f"in.noise.chunk{self.chunk}.draw{draw}"]


def pipeline(world, config, parts, inputs, chunks):
    """Chunks of the whole program: (latents, frames on rank 0, motion latents) of each."""
    shape = shape_of(config)
    dit = DiT(DiTConfig.from_dict(parts["dit_config"]))
    dit.load_state_dict(parts["dit"])
    vae = Vae(VaeConfig(dim=parts["vae_config"]["dim"]))
    vae.load_state_dict(parts["vae"])
    speech = build_speech_encoder(SpeechEncoderConfig.of(parts["wav2vec_config"]))
    speech.load_state_dict(rename_speech_encoder(parts["wav2vec"]), assign=True)
    group, bands = ranks_for(world, dit.config.num_heads, shape.tokens, shape.latent[2])
    anchor = make_anchor(inputs["out.cond_image_tensor"], vae, shape, bands)
    schedules = Schedules((config["sample_steps"],), float(config["sample_shift"]))
    noise = Noise(inputs)
    stream = FlashTalkStream(
        dit=dit,
        vae=vae,
        conditions=dit.stream_conditions(
            inputs["out.context"], inputs["out.clip_context"][0], anchor.y, schedules.table, group
        ),
        anchor=anchor,
        shape=shape,
        schedules=schedules,
        noise=noise,
        group=group,
        attention=attention(),
        color_strength=config["color_correction_strength"],
        bands=bands,
    )
    hear = _heard_in_chunks(config, shape, speech, inputs["in.waveform"].numpy())
    results = []
    for number in range(chunks):
        noise.chunk = number
        latents = stream.chunk_latents(dit.chunk_conditions(*hear(number)))
        frames = [bands.gather_first(matched) for _, matched in stream.frames(latents)]
        whole = torch.cat(frames, dim=2) if world.rank() == 0 else None
        results.append((latents, whole, stream.motion))
    return results


def _heard_in_chunks(config, shape, speech, waveform):
    if config["audio_encode_mode"] == "stream":
        buffer = SpeechBuffer(speech, shape, torch.device("cpu"))

        def hear(number):
            buffer.push(waveform[number * shape.chunk_samples : (number + 1) * shape.chunk_samples])
            return buffer.slices()

        return hear
    loud = torch.from_numpy(np.asarray(normalize_loudness(waveform), np.float32))
    embedding = encode_speech(speech, loud, len(waveform) * shape.fps // config["sample_rate"])
    return lambda number: audio_slices(embedding, number * shape.new_frames, shape.frames, end=len(embedding))
