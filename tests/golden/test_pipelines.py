"""The whole program against the reference: from a picture, token numbers and a waveform to frames, chunk by chunk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.generators.flashtalk.config import DiTConfig, StreamShape
from engine.generators.flashtalk.image_encoder import (
    ImageEncoderConfig,
    build_image_encoder,
    encode_image,
    rename_image_encoder,
)
from engine.generators.flashtalk.loudness import normalize_loudness
from engine.generators.flashtalk.portrait_tensor import cover_and_crop, to_unit_range
from engine.generators.flashtalk.sampler import Schedules, denoise
from engine.generators.flashtalk.speech_buffer import SpeechBuffer
from engine.generators.flashtalk.speech_encoder import (
    SpeechEncoderConfig,
    audio_window,
    build_speech_encoder,
    encode_speech,
    rename_speech_encoder,
)
from engine.generators.flashtalk.stream import Anchor, FlashTalkStream, make_anchor, to_bytes
from engine.generators.flashtalk.text_encoder import (
    TextEncoderConfig,
    build_text_encoder,
    encode_text,
    rename_text_encoder,
)
from engine.generators.flashtalk.transformer import DiT
from engine.generators.flashtalk.vae import Vae
from engine.generators.flashtalk.vae_coders import VaeConfig
from engine.parallel.group import LocalGroup

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def jobs(module_at):
    """What ranks are given to do, of which sizes and noise are the same for one."""
    return module_at(Path(__file__).with_name("rank_jobs.py"))


@dataclass
class Program:
    """Everything that a case needs, built from the recorded weights."""

    dit: DiT
    vae: Vae
    stream: FlashTalkStream
    speech: object
    shape: StreamShape
    noise: Any
    anchor: Anchor
    context: torch.Tensor
    image: torch.Tensor
    schedule: torch.Tensor


def build(case, attention, jobs) -> Program:
    config, tensors = case.meta["config"], case.tensors
    shape = jobs.shape_of(config)
    assert shape.new_frames == config["slice_len_frames"] and shape.chunk_samples == config["samples_per_chunk"]
    dit = DiT(DiTConfig.from_dict(case.other("dit").meta["config"]))
    dit.load_state_dict(case.weights("dit"))
    vae_config = case.other("vae").meta["config"]
    vae = Vae(VaeConfig(dim=vae_config["dim"]))
    vae.load_state_dict(case.weights("vae"))
    speech = build_speech_encoder(SpeechEncoderConfig.of(case.other("wav2vec").meta["config"]))
    speech.load_state_dict(rename_speech_encoder(case.weights("wav2vec")), assign=True)

    picture = cover_and_crop(tensors["in.cond_image_uint8"].numpy(), shape.height, shape.width)
    portrait = to_unit_range(picture)
    context = encode_prompt(case, tensors)
    image = encode_portrait(case, portrait)
    anchor = make_anchor(portrait, vae, shape)
    schedules, group = Schedules((config["sample_steps"],), float(config["sample_shift"])), LocalGroup()
    noise = jobs.Noise(tensors)
    stream = FlashTalkStream(
        dit=dit,
        vae=vae,
        conditions=dit.stream_conditions(context, image[0], anchor.y, schedules.table, group),
        anchor=anchor,
        shape=shape,
        schedules=schedules,
        noise=noise,
        group=group,
        attention=attention,
        color_strength=config["color_correction_strength"],
    )
    return Program(dit, vae, stream, speech, shape, noise, anchor, context, image, schedules.first.timesteps)


def encode_prompt(case, tensors) -> torch.Tensor:
    weights = case.weights("t5")
    model = build_text_encoder(TextEncoderConfig.of(weights))
    model.load_state_dict(rename_text_encoder(weights), assign=True)
    return encode_text(model, tensors["in.prompt_ids"], tensors["in.prompt_mask"])


def encode_portrait(case, portrait: torch.Tensor) -> torch.Tensor:
    weights = case.weights("clip")
    config = ImageEncoderConfig.of(weights, num_heads=case.other("clip").meta["config"]["vision_heads"])
    model = build_image_encoder(config)
    model.load_state_dict(rename_image_encoder(weights, config), assign=True)
    return encode_image(model, portrait)


def check_preparation(case, program: Program) -> None:
    case.check(program.context, "out.context")
    case.check(program.image, "out.clip_context")
    case.check(program.anchor.portrait, "out.cond_image_tensor")
    case.check(program.anchor.y[None], "out.y")
    case.check(program.anchor.motion, "out.latent_motion_initial")
    case.check(program.schedule, "out.timesteps", 1e-6)


def check_chunk(case, program: Program, number: int, slices) -> None:
    """Run one chunk and compare what was recorded of it."""
    tensors, bounds = case.tensors, case.meta["tolerance"]
    latent_bound, frame_bound = bounds["latent_chunks"][number], bounds["frame_chunks"][number]
    program.noise.chunk = number
    latents = program.stream.chunk_latents(program.dit.chunk_conditions(*slices))
    case.check(latents, f"out.latent_final.chunk{number}", latent_bound)
    groups = list(program.stream.frames(latents))
    raw, matched = (torch.cat([group[part] for group in groups], dim=2) for part in (0, 1))
    if f"out.decoded_raw.chunk{number}" in tensors:
        recorded = tensors[f"out.decoded_raw.chunk{number}"][:, :, program.shape.motion_frames :]
        assert (raw - recorded).abs().max() <= bounds["value"] * recorded.abs().max()
    if f"out.frames.chunk{number}" in tensors:
        case.check(matched[0], f"out.frames.chunk{number}", frame_bound)
    if f"out.frames_uint8.chunk{number}" in tensors:
        difference = to_bytes(matched).int() - tensors[f"out.frames_uint8.chunk{number}"].int()
        assert difference.abs().max() <= 1
    case.check(program.stream.motion, f"out.latent_motion_next.chunk{number}", latent_bound)


def test_stream(pipeline_stream_case, exact_attention, jobs):
    case = pipeline_stream_case
    program = build(case, exact_attention, jobs)
    check_preparation(case, program)
    shape, waveform = program.shape, case.tensors["in.waveform"].numpy()
    buffer = SpeechBuffer(program.speech, shape, CPU)
    for number in range(case.meta["chunks_saved"]):
        buffer.push(waveform[number * shape.chunk_samples : (number + 1) * shape.chunk_samples])
        embedding = buffer.embedding()
        start = shape.history_frames - shape.frames
        if f"out.audio_frames_before_window.chunk{number}" in case.tensors:
            case.check(embedding, f"out.audio_frames_before_window.chunk{number}")
        if f"out.audio_embedding.chunk{number}" in case.tensors:
            windows = audio_window(embedding, start, shape.history_frames)
            case.check(windows, f"out.audio_embedding.chunk{number}")
        check_chunk(case, program, number, buffer.slices())


def test_once(pipeline_once_case, exact_attention, jobs):
    """The reference's mode for files: all sound is encoded at once, and the chunks take their windows from that."""
    case = pipeline_once_case
    program = build(case, exact_attention, jobs)
    check_preparation(case, program)
    shape, waveform = program.shape, case.tensors["in.waveform"].numpy()
    loud = torch.from_numpy(np.asarray(normalize_loudness(waveform), np.float32))
    embedding = encode_speech(program.speech, loud, len(waveform) * shape.fps // case.meta["config"]["sample_rate"])
    for number in range(case.meta["chunks_saved"]):
        # Whole-file windows reach beyond the chunk's end: only the file's end repeats its last row.
        windows = audio_window(embedding)[0, number * shape.new_frames :][: shape.frames]
        if f"out.audio_embedding.chunk{number}" in case.tensors:
            case.check(windows[None], f"out.audio_embedding.chunk{number}")
        four = windows[1:].unflatten(0, (-1, 4))
        later = torch.cat((four[:, 0, :3], four[:, 1, 2:3], four[:, 2, 2:3], four[:, 3, 2:]), dim=1)
        check_chunk(case, program, number, (windows[:1], later))


def test_every_step_alone(pipeline_stream_case, exact_attention, jobs):
    """Each recorded step from its own recorded input, so that a fault shows where it is."""
    case = pipeline_stream_case
    program = build(case, exact_attention, jobs)
    tensors = case.tensors
    embedding = tensors["out.audio_embedding.chunk0"][0]
    four = embedding[1:].unflatten(0, (-1, 4))
    later = torch.cat((four[:, 0, :3], four[:, 1, 2:3], four[:, 2, 2:3], four[:, 3, 2:]), dim=1)
    chunk = program.dit.chunk_conditions(embedding[:1], later)
    steps = case.meta["config"]["sample_steps"]
    seen = []

    def recorded(latents: torch.Tensor, step: int) -> torch.Tensor:
        case.check(latents, f"out.latent_model_input.chunk0.step{step}")
        given = tensors[f"out.latent_model_input.chunk0.step{step}"]
        velocity = program.stream._velocity(chunk, range(steps), motion=0)(given, step)
        case.check(velocity, f"out.velocity.chunk0.step{step}")
        seen.append(step)
        return tensors[f"out.velocity.chunk0.step{step}"]

    final = denoise(recorded, program.noise, program.anchor.motion, program.schedule)
    assert seen == list(range(steps))
    case.check(final, "out.latent_final.chunk0")
