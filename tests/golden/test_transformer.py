"""The transformer, its positions and its schedule against the reference."""

import pytest
import torch

from engine.generators.flashtalk.config import DiTConfig
from engine.generators.flashtalk.rope import axis_pairs, rotary_table, rotate, sinusoid
from engine.generators.flashtalk.sampler import timesteps
from engine.generators.flashtalk.transformer import DiT
from engine.parallel.group import LocalGroup


def build(case) -> DiT:
    dit = DiT(DiTConfig.from_dict(case.meta["config"]))
    dit.load_state_dict(case.weights())
    return dit


def audio_slots(windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the transformer takes, picked from windows [frames, 5, layers, channels] as the reference's README says."""
    four = windows[1:].unflatten(0, (-1, 4))
    return windows[:1], torch.cat((four[:, 0, :3], four[:, 1, 2:3], four[:, 2, 2:3], four[:, 3, 2:]), dim=1)


def test_velocity_and_everything_on_the_way(dit_case, exact_attention):
    dit, tensors = build(dit_case), dit_case.tensors
    seen = {}
    block = dit.blocks[0]
    for name, module in {
        "block0_self_attn": block.self_attn,
        "block0_cross_attn": block.cross_attn,
        "block0_audio_cross_attn": block.audio_cross_attn,
        "block0_ffn": block.ffn,
        "block0": block,
    }.items():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out[None]))
    # The norm is part of a kernel with the rotation; here it is called by itself.
    block.self_attn.register_forward_pre_hook(
        lambda m, given: seen.__setitem__("block0_self_attn_q_normed", m.norm_q(m.q(given[0]))[None])
    )
    dit.audio_proj.register_forward_hook(lambda _m, _i, out: seen.__setitem__("audio_context", out[None]))

    group = LocalGroup()
    stream = dit.stream_conditions(
        tensors["in.context"], tensors["in.clip_fea"][0], tensors["in.y"][0], tensors["in.t"], group
    )
    chunk = dit.chunk_conditions(*audio_slots(tensors["in.audio"][0]))
    seen["velocity"] = dit(tensors["in.x"], 0, stream, chunk, group, exact_attention)[None]
    seen["image_context"] = dit.embed_image(tensors["in.clip_fea"][0])[None]
    patches = dit.embed_patches(tensors["in.x"], stream, group)
    seen["patch_embedding"] = patches.unflatten(0, stream.grid).movedim(-1, 0)[None]
    seen["text_context"] = all_text_rows(dit, tensors["in.context"])[None]
    seen["time_e"] = stream.head_modulation[0, :1] - dit.head.modulation[0, :1]
    seen["time_e0"] = stream.modulation[:, 0] - block.modulation

    recorded = [key for key in tensors if key.startswith("out.")]
    assert "out.velocity" in recorded
    for key in recorded:
        dit_case.check(seen[key.removeprefix("out.")], key)


def all_text_rows(dit: DiT, context: torch.Tensor) -> torch.Tensor:
    """The reference's rows: those of the text, then the padding's one row again and again."""
    rows, _ = dit.embed_text(context)
    real, padding = rows[: len(context)], rows[len(context) : len(context) + 1]
    return torch.cat((real, padding.expand(dit.config.text_len - len(context), -1)))


def test_rotation(rope_case):
    tensors = rope_case.tensors
    pairs_seen = 0
    for key in [key for key in tensors if key.startswith("in.q_hd")]:
        name = key.removeprefix("in.")
        head_dim = int(name.split("_")[1].removeprefix("hd"))
        grid = next(value for value in grids(rope_case.meta, name))
        rope_case.check(rotate(tensors[key][0], rotary_table(tuple(grid), head_dim))[None], f"out.{name}")
        pairs_seen += 1
    assert pairs_seen


def grids(meta: dict, name: str):
    """The grid that the JSON gives for the tensor `name`, wherever it stands."""
    for value in meta.values():
        if isinstance(value, dict) and name in value:
            yield value[name]["grid"] if isinstance(value[name], dict) else value[name]


def test_frequencies_and_their_split(rope_case):
    for key, table in rope_case.tensors.items():
        if not key.startswith("out.freqs_cos_hd"):
            continue
        head_dim = int(key.removeprefix("out.freqs_cos_hd"))
        positions = len(table)
        split = axis_pairs(head_dim)
        for part, name in ((0, "cos"), (1, "sin")):
            along = [
                rotary_table(tuple(positions if axis == other else 1 for other in range(3)), head_dim)[part, :, 0]
                for axis in range(3)
            ]
            starts = (0, split[0], split[0] + split[1])
            columns = [along[axis][:, starts[axis] : starts[axis] + split[axis]] for axis in range(3)]
            rope_case.check(torch.cat(columns, dim=1), f"out.freqs_{name}_hd{head_dim}")
        assert list(split) == rope_case.meta.get(f"axis_pairs_hd{head_dim}", list(split))


def test_embedding_of_timesteps(rope_case):
    for key in [key for key in rope_case.tensors if key.startswith("out.sinusoidal_")]:
        width = int(key.rsplit("_", 1)[1])
        rope_case.check(sinusoid(rope_case.tensors["in.timesteps"], width).float(), key)


def test_schedules(timesteps_case):
    meta = timesteps_case.meta
    for steps, expected in meta["schedules"].items():
        got = timesteps(int(steps), float(meta["shift"]))
        assert got.dtype == torch.float32
        assert got.tolist() == pytest.approx(expected["timesteps"], rel=meta["tolerance"]["value"], abs=0)
