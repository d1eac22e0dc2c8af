"""The same numbers from 1, 2, 3 and 4 ranks as from one: real processes, real gloo."""

from pathlib import Path

import pytest
import torch

from engine.generators.flashtalk.attention import choose_attention
from engine.generators.flashtalk.config import DiTConfig
from engine.generators.flashtalk.transformer import DiT
from engine.generators.flashtalk.vae import Vae
from engine.generators.flashtalk.vae_coders import VaeConfig
from engine.parallel.group import LocalGroup

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(600)]

JOBS = Path(__file__).with_name("rank_jobs.py")
RANK_TOLERANCE = 1e-5
WORLDS = [1, 2, 3, 4]


def assert_alike(results, expected, tolerance=RANK_TOLERANCE):
    for rank, result in enumerate(results):
        error = ((result - expected).abs().max() / expected.abs().max()).item()
        assert error <= tolerance, f"rank {rank}: {error:.3g}"


def slots_of(windows):
    four = windows[1:].unflatten(0, (-1, 4))
    return windows[:1], torch.cat((four[:, 0, :3], four[:, 1, 2:3], four[:, 2, 2:3], four[:, 3, 2:]), dim=1)


def inputs_of(case) -> dict:
    return {key: value for key, value in case.tensors.items() if key.startswith("in.")}


def one_rank_velocity(case, slots):
    dit, tensors = DiT(DiTConfig.from_dict(case.meta["config"])), case.tensors
    dit.load_state_dict(case.weights())
    group = LocalGroup()
    stream = dit.stream_conditions(
        tensors["in.context"], tensors["in.clip_fea"][0], tensors["in.y"][0], tensors["in.t"], group
    )
    backend = choose_attention(torch.device("cpu"), torch.float32)
    return dit(tensors["in.x"], 0, stream, dit.chunk_conditions(*slots), group, backend)


@pytest.mark.parametrize("world", WORLDS)
def test_velocity(dit_case, world, rank_pools):
    """Heads over as many ranks as divide them, the ring over the rest; token counts that do not divide included."""
    slots = slots_of(dit_case.tensors["in.audio"][0])
    expected = one_rank_velocity(dit_case, slots)
    degrees = [
        degree for degree in (1, 2, 4) if world % degree == 0 and dit_case.meta["config"]["num_heads"] % degree == 0
    ]
    for degree in degrees:
        arguments = {
            "config": dit_case.meta["config"],
            "weights": dit_case.weights(),
            "inputs": inputs_of(dit_case),
            "slots": slots,
            "ulysses": degree,
        }
        results = rank_pools(world).run(JOBS, "velocity", arguments)
        assert_alike(results, expected)
        for result in results:
            dit_case.check(result[None], "out.velocity")


@pytest.mark.parametrize("world", WORLDS)
def test_encode(vae_enc_case, world, rank_pools):
    video = vae_enc_case.tensors["in.video"]
    results = rank_pools(world).run(JOBS, "code", {**vae_of(vae_enc_case), "video": video})
    assert_alike(results, built(vae_enc_case).encode(video))
    vae_enc_case.check(results[0], "out.latent")


@pytest.mark.parametrize("world", WORLDS)
def test_decode(vae_dec_case, world, rank_pools):
    latents = vae_dec_case.tensors["in.latent"]
    results = rank_pools(world).run(JOBS, "code", {**vae_of(vae_dec_case), "latents": latents})
    assert_alike(results, built(vae_dec_case).decode_all(latents))
    vae_dec_case.check(results[0], "out.video")


def vae_of(case) -> dict:
    return {"dim": case.meta["config"]["dim"], "weights": case.weights()}


def built(case) -> Vae:
    vae = Vae(VaeConfig(dim=case.meta["config"]["dim"]))
    vae.load_state_dict(case.weights())
    return vae


@pytest.mark.parametrize("world", WORLDS)
def test_stream(pipeline_stream_case, world, rank_pools):
    check_pipeline(pipeline_stream_case, rank_pools(world))


@pytest.mark.parametrize("world", WORLDS)
def test_once(pipeline_once_case, world, rank_pools):
    check_pipeline(pipeline_once_case, rank_pools(world))


def check_pipeline(case, pool) -> None:
    tensors, bounds = case.tensors, case.meta["tolerance"]
    parts = {}
    for part in ("dit", "vae", "wav2vec"):
        parts[part], parts[f"{part}_config"] = case.weights(part), case.other(part).meta["config"]
    wanted = ("in.", "out.cond_image_tensor", "out.context", "out.clip_context")
    arguments = {
        "config": case.meta["config"],
        "parts": parts,
        "inputs": {key: value for key, value in tensors.items() if key.startswith(wanted)},
        "chunks": case.meta["chunks_saved"],
    }
    results = pool.run(JOBS, "pipeline", arguments)
    for number in range(case.meta["chunks_saved"]):
        for chunks in results:
            latents, _, motion = chunks[number]
            case.check(latents, f"out.latent_final.chunk{number}", bounds["latent_chunks"][number])
            case.check(motion, f"out.latent_motion_next.chunk{number}", bounds["latent_chunks"][number])
            assert torch.equal(latents, results[0][number][0]), "ranks must never drift apart"
        if f"out.frames.chunk{number}" in tensors:
            frames = results[0][number][1]
            case.check(frames[0], f"out.frames.chunk{number}", bounds["frame_chunks"][number])
