"""Softmax attention: one function for the model, several kernels behind it, chosen once and reported.

Shapes: q [tokens, heads, head_dim], k and v [keys, heads, head_dim]; the result is shaped like q.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.errors import UsageError
from engine.generators.flashtalk.attention_8bit import attend_8bit

logger = logging.getLogger(__name__)

_PROBE_TOLERANCE = 2e-2
"""A kernel in 8 bits of mantissa stays within about 5e-3 of exact attention on unit normal input."""
_APPROXIMATE_TOLERANCE = 0.04
"""Relative error that a kernel of 8 bits may have on input like the model's; `attend_8bit` has about half of it."""

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class AttentionBackend:
    """A kernel under the name that is shown to people; implements `engine.parallel.group.Attention`.

    `error` is the relative one of a kernel that only approximates attention, measured here; 0 for the others.
    """

    name: str
    attend: Kernel
    error: float = 0.0

    @property
    def label(self) -> str:
        """The name, and what it costs."""
        return f"{self.name} (off by {100 * self.error:.1f} %)" if self.error else self.name

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of q to k and v."""
        return self.attend(q, k, v)

    def with_lse(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Attention and the log-sum-exp [tokens, heads] of its logits, for results that are merged later."""
        return attend_with_lse(q, k, v)


def choose_attention(device: torch.device, dtype: torch.dtype, wanted: str = "auto") -> AttentionBackend:
    """The fastest kernel that runs here and agrees with exact attention on a probe.

    `wanted` names one of `attention_names()`; then only that one is tried, and only then one that approximates. Raises
    `UsageError` where it cannot run.
    """
    if wanted not in attention_names():
        raise UsageError(f'There is no attention called "{wanted}".', hint=f"Choose one of: {attention_names()}.")
    if wanted in _APPROXIMATE:
        return _choose_approximate(wanted, device, dtype)
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        if wanted not in ("auto", "sdpa"):
            raise UsageError(f"The attention {wanted} needs a CUDA device and 16-bit weights.", hint="Choose auto.")
        return AttentionBackend(name="sdpa", attend=_sdpa)
    reasons = []
    for name in _BACKENDS if wanted == "auto" else (wanted,):
        try:
            backend = AttentionBackend(name=name, attend=_BACKENDS[name](device))
            _probe(backend.attend, device, dtype)
        except Exception as error:  # noqa: BLE001 - libraries and drivers refuse in any way they like
            reasons.append(f"{name}: {error}")
            logger.info("attention %s is not used: %s", name, error)
        else:
            return backend
    raise UsageError(f"No attention kernel runs on this device ({'; '.join(reasons)}).", hint="Choose auto.")


def attention_names() -> tuple[str, ...]:
    """What `choose_attention` takes, the fastest first after auto."""
    return ("auto", *_BACKENDS, *_APPROXIMATE)


def _choose_approximate(name: str, device: torch.device, dtype: torch.dtype) -> AttentionBackend:
    if name != "emulated8" and (device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16)):
        raise UsageError(f"The attention {name} needs a CUDA device and 16-bit weights.", hint="Choose auto.")
    try:
        attend = _APPROXIMATE[name](device)
        error = _approximate_error(attend, device, dtype)
        if not error <= _APPROXIMATE_TOLERANCE:
            raise RuntimeError(f"its result is off by {100 * error:.1f} %")
    except Exception as error:
        raise UsageError(f"The attention {name} does not run on this device ({error}).", hint="Choose auto.") from error
    backend = AttentionBackend(name=name, attend=attend, error=error)
    logger.info("attention %s approximates: relative error %.4f on input like the model's", name, error)
    return backend


def attend_few_keys(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attention of many queries to few keys, of which key j's logit gets `bias` [keys] added."""
    mask = None if bias is None else bias.to(q.dtype).view(1, 1, 1, -1)
    return _sdpa(q, k, v, mask)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """torch's own choice of kernel; exact in float32 and float64."""
    out = F.scaled_dot_product_attention(*(x.transpose(0, 1).unsqueeze(0) for x in (q, k, v)), attn_mask=mask)
    return out.squeeze(0).transpose(0, 1)


_LSE_QUERIES = 1024
"""Queries whose logits are held at once where no kernel gives the log-sum-exp."""


def attend_with_lse(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention, and the log-sum-exp [tokens, heads] of the logits in float32 or wider.

    On a GPU in 16 bits by torch's flash kernel; elsewhere spelled out, in slices of the queries.
    """
    heads_first = [x.transpose(0, 1).unsqueeze(0) for x in (q, k, v)]
    if q.is_cuda and q.dtype in (torch.bfloat16, torch.float16):
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention(*heads_first)[:2]
        return out.squeeze(0).transpose(0, 1), lse.squeeze(0).transpose(0, 1)
    queries, keys, values = (x.squeeze(0).to(torch.promote_types(x.dtype, torch.float32)) for x in heads_first)
    outs, sums = [], []
    for part in (queries * q.shape[-1] ** -0.5).split(_LSE_QUERIES, dim=1):
        logits = part @ keys.transpose(1, 2)
        sums.append(torch.logsumexp(logits, dim=-1))
        outs.append(torch.softmax(logits, dim=-1) @ values)
    return torch.cat(outs, dim=1).transpose(0, 1).to(q.dtype), torch.cat(sums, dim=1).transpose(0, 1)


def _flash3(device: torch.device) -> Kernel:
    """FlashAttention 3, made for Hopper."""
    if torch.cuda.get_device_capability(device)[0] != 9:
        raise RuntimeError("it is made for Hopper")
    return _batched(import_module("flash_attn_interface").flash_attn_func)


def _flash4(device: torch.device) -> Kernel:
    """FlashAttention 4, made for Hopper and Blackwell."""
    if torch.cuda.get_device_capability(device)[0] < 9:
        raise RuntimeError("it is made for Hopper and later")
    return _batched(import_module("flash_attn.cute").flash_attn_func)


def _flash2(device: torch.device) -> Kernel:
    """FlashAttention 2, for Ampere and later."""
    return _batched(import_module("flash_attn").flash_attn_func)


def _cudnn(device: torch.device) -> Kernel:
    """cuDNN through torch, which prefers its own slower kernel unless told."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return _sdpa(q, k, v)

    return attend


def _sage(device: torch.device) -> Kernel:
    """SageAttention: INT8 for queries and keys, FP8 (FP16 on older cards) for weights and values."""
    attend = import_module("sageattention").sageattn
    return _batched(lambda q, k, v: attend(q, k, v, tensor_layout="NHD", is_causal=False))


def _batched(function: Callable[..., Tensor]) -> Kernel:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = function(q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0))
        return (out[0] if isinstance(out, tuple) else out).squeeze(0)

    return attend


def _probe(attend: Kernel, device: torch.device, dtype: torch.dtype) -> None:
    """Raises `RuntimeError` where the kernel disagrees with exact attention."""
    generator = torch.Generator(device).manual_seed(0)
    q, k, v = (torch.randn(200, 4, 128, device=device, dtype=dtype, generator=generator) for _ in range(3))
    exact = _sdpa(q.float(), k.float(), v.float())
    error = (attend(q, k, v).float() - exact).abs().max().item()
    if not error < _PROBE_TOLERANCE:
        raise RuntimeError(f"its result is off by {error:.3g}")


def model_like(
    tokens: int, heads: int, generator: torch.Generator, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v [tokens, heads, 128] like the model's: a few strong channels, keys with something in common, queries that
    look for some of the keys, values off their mean."""

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, generator=generator)

    strong = torch.ones(heads, 128, device=device)
    strong[:, ::17] = 4.0
    k = drawn(tokens, heads, 128)
    q = drawn(tokens, heads, 128) + 0.8 * k[torch.randperm(tokens, generator=generator, device=device)]
    k = (k + 2.0 * drawn(1, heads, 128)) * strong.rsqrt()
    v = drawn(tokens, heads, 128) + 0.5 * drawn(1, heads, 128)
    return tuple(x.to(dtype) for x in (q * strong.sqrt(), k, v))  # type: ignore[return-value]


def _approximate_error(attend: Kernel, device: torch.device, dtype: torch.dtype) -> float:
    """Relative to exact attention, on input like the model's."""
    generator = torch.Generator(device).manual_seed(0)
    q, k, v = model_like(500, 4, generator, device, dtype)
    exact = _sdpa(q.float(), k.float(), v.float())
    return (torch.linalg.vector_norm(attend(q, k, v).float() - exact) / torch.linalg.vector_norm(exact)).item()


_BACKENDS: dict[str, Callable[[torch.device], Kernel]] = {
    "flash3": _flash3,
    "flash4": _flash4,
    "cudnn": _cudnn,
    "flash2": _flash2,
    "sdpa": lambda device: _sdpa,
}
_APPROXIMATE: dict[str, Callable[[torch.device], Kernel]] = {
    "sage": _sage,
    "emulated8": lambda device: attend_8bit,
}
"""Kernels of 8 bits, used only by name. The second is slow: it shows what the first costs in quality, on any device."""
