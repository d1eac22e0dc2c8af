"""The video VAE and the colour match against the reference."""

import pytest
import torch

from engine.generators.flashtalk.color import ColorMatch, lab_to_srgb, srgb_to_lab
from engine.generators.flashtalk.vae import LATENT_MEAN, LATENT_STD, Vae
from engine.generators.flashtalk.vae_coders import VaeConfig


def build(case) -> Vae:
    config = case.meta["config"]
    vae = Vae(
        VaeConfig(
            dim=config["dim"],
            z_dim=config["z_dim"],
            dim_mult=tuple(config["dim_mult"]),
            num_res_blocks=config["num_res_blocks"],
            temporal_downsample=tuple(config["temperal_downsample"]),
        )
    )
    vae.load_state_dict(case.weights())
    return vae


def test_encode(vae_enc_case):
    vae_enc_case.check(build(vae_enc_case).encode(vae_enc_case.tensors["in.video"]), "out.latent")


@pytest.mark.parametrize("upsampling", ["plain", "merged"])
def test_decode(vae_dec_case, upsampling):
    vae = build(vae_dec_case)
    if upsampling == "merged":
        vae.merge_upsampling()
    vae_dec_case.check(vae.decode_all(vae_dec_case.tensors["in.latent"]), "out.video")


def test_weights_and_scaling(vae_weights_case):
    build(vae_weights_case)
    scaling = vae_weights_case.meta["scaling"]
    assert list(LATENT_MEAN) == pytest.approx(scaling["mean"])
    assert list(LATENT_STD) == pytest.approx(scaling["std"])


def test_color_match(color_case):
    tensors = color_case.tensors
    match = ColorMatch(tensors["in.reference"])
    strengths = [key for key in tensors if key.startswith("out.strength_")]
    assert strengths
    for key in strengths:
        color_case.check(match.apply(tensors["in.source"], float(key.rsplit("_", 1)[1])), key)


def test_color_spaces(color_case):
    tensors = color_case.tensors
    lab = srgb_to_lab((tensors["in.source"] + 1) / 2)
    color_case.check(lab.movedim(1, -1), "out.lab_of_source")
    color_case.check(lab_to_srgb(tensors["out.lab_of_source"].movedim(-1, 1)).movedim(1, -1), "out.rgb01_from_lab")


def test_frames_leave_one_latent_frame_at_a_time(vae_dec_case):
    groups = list(build(vae_dec_case).decode(vae_dec_case.tensors["in.latent"]))
    assert [group.shape[2] for group in groups] == [1] + [4] * (len(groups) - 1)
    vae_dec_case.check(torch.cat(groups, dim=2), "out.video")
