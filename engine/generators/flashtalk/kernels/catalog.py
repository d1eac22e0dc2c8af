"""All kernels, in the order in which they are checked."""

from __future__ import annotations

from engine.generators.flashtalk.kernels.attend_two import ATTEND_TWO
from engine.generators.flashtalk.kernels.color_match import COLOR_MATCH, TO_BYTES
from engine.generators.flashtalk.kernels.layer_norm import ADD_GATED_NORM, ADD_NORM, ADD_NORM_MODULATE, NORM_MODULATE
from engine.generators.flashtalk.kernels.linear_gelu import LINEAR_GELU
from engine.generators.flashtalk.kernels.norm_rotary import NORM_ROTARY
from engine.generators.flashtalk.kernels.quantize import QUANTIZING
from engine.generators.flashtalk.kernels.registry import FusedKernel
from engine.generators.flashtalk.kernels.residual import ADD_GATED
from engine.generators.flashtalk.kernels.rms_norm import RMS_NORM
from engine.generators.flashtalk.kernels.vae_norm import ADD_BIAS, ADD_NORM_SILU_JOIN, NORM_SILU, NORM_SILU_JOIN
from engine.generators.flashtalk.kernels.vae_upsample import UPSAMPLE
from engine.generators.flashtalk.quantization.scheme import Scheme

DIT_KERNELS = (
    NORM_ROTARY,
    NORM_MODULATE,
    ADD_GATED_NORM,
    ADD_NORM,
    ADD_NORM_MODULATE,
    ADD_GATED,
    RMS_NORM,
    ATTEND_TWO,
    LINEAR_GELU,
)
VAE_KERNELS = (NORM_SILU_JOIN, NORM_SILU, ADD_BIAS, ADD_NORM_SILU_JOIN, UPSAMPLE)
"""Of the video autoencoder."""
FRAME_KERNELS = (COLOR_MATCH, TO_BYTES)
"""Of what happens to decoded frames."""


def dit_kernels(scheme: Scheme | None) -> tuple[FusedKernel, ...]:
    """The transformer's, with those that make tokens 8-bit by `scheme` where there is one."""
    return DIT_KERNELS if scheme is None else (*DIT_KERNELS, *QUANTIZING[scheme.name].values())
