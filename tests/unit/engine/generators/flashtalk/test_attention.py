"""The kernels behind one function: what they compute, which one is chosen, and what is said where none can be."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from engine.errors import UsageError  # noqa: E402
from engine.generators.flashtalk import attention as module  # noqa: E402
from engine.generators.flashtalk.attention import attend_few_keys, attention_names, choose_attention  # noqa: E402
from engine.parallel.group import LocalGroup  # noqa: E402

CPU = torch.device("cpu")


def _exact(q, k, v, bias=None):
    """Query by query, head by head, with a softmax written out."""
    out = torch.empty(len(q), *v.shape[1:], dtype=torch.float64)
    for i in range(len(q)):
        for head in range(q.shape[1]):
            logits = k[:, head] @ q[i, head] / math.sqrt(q.shape[-1])
            logits = logits if bias is None else logits + bias
            weights = (logits - logits.max()).exp()
            out[i, head] = (weights / weights.sum()) @ v[:, head]
    return out


def _qkv(queries=7, keys=11, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, 3, 8, dtype=torch.float64, generator=generator) for n in (queries, keys, keys))


def test_attention_is_the_softmax_of_the_spec():
    q, k, v = _qkv()
    backend = choose_attention(CPU, torch.float32)
    assert backend.name == "sdpa"
    torch.testing.assert_close(backend.attend(q, k, v), _exact(q, k, v), rtol=0, atol=1e-13)
    torch.testing.assert_close(LocalGroup().attend(q, k, v, backend.attend), _exact(q, k, v), rtol=0, atol=1e-13)


def test_a_bias_is_added_to_the_logits_of_its_key():
    q, k, v = _qkv()
    bias = torch.linspace(-1, 3, 11, dtype=torch.float64)
    torch.testing.assert_close(attend_few_keys(q, k, v, bias), _exact(q, k, v, bias), rtol=0, atol=1e-13)
    assert (attend_few_keys(q, k, v, bias) - attend_few_keys(q, k, v)).abs().max() > 0.1


def test_a_key_of_bias_minus_infinity_does_not_exist():
    q, k, v = _qkv()
    bias = torch.zeros(11, dtype=torch.float64)
    bias[8:] = -math.inf
    torch.testing.assert_close(attend_few_keys(q, k, v, bias), _exact(q, k[:8], v[:8]), rtol=0, atol=1e-13)


def test_one_key_with_a_logarithm_stands_for_many():
    q, k, v = _qkv()
    many = [torch.cat((x, x[-1:].expand(20, -1, -1))) for x in (k, v)]
    bias = torch.zeros(11, dtype=torch.float64)
    bias[-1] = math.log(21)
    torch.testing.assert_close(attend_few_keys(q, k, v, bias), _exact(q, *many), rtol=0, atol=1e-13)


def test_names_begin_with_auto():
    assert attention_names()[0] == "auto" and {"flash3", "cudnn", "sdpa"} <= set(attention_names())


def test_an_unknown_kernel_is_refused_with_the_known_ones():
    with pytest.raises(UsageError) as raised:
        choose_attention(CPU, torch.float32, "flash9")
    assert "flash9" in raised.value.message and "sdpa" in raised.value.hint


@pytest.mark.parametrize("name", [name for name in attention_names() if name not in ("auto", "sdpa", "emulated8")])
def test_a_kernel_for_gpus_is_refused_on_a_cpu(name):
    with pytest.raises(UsageError) as raised:
        choose_attention(CPU, torch.bfloat16, name)
    assert name in raised.value.message and raised.value.hint


class _Gpu:
    """Stands for a CUDA device; what is made on it is made here."""

    type = "cuda"


@pytest.fixture
def kernels(monkeypatch):
    """Replaces the table of kernels; the probe then runs on this machine, against exact attention."""
    real = module._probe
    monkeypatch.setattr(module, "_probe", lambda attend, device, dtype: real(attend, CPU, dtype))

    def use(**table):
        monkeypatch.setattr(module, "_BACKENDS", table)

    return use


def _absent(device):
    raise ModuleNotFoundError("No module named 'flash_attn_interface'")


def _wrong(device):
    return lambda q, k, v: module._sdpa(q, k.roll(1, dims=0), v)


def _failing(device):
    def attend(q, k, v):
        raise RuntimeError("no kernel image is available for execution on the device")

    return attend


def _nan(device):
    return lambda q, k, v: module._sdpa(q, k, v) * math.nan


def _good(device):
    return module._sdpa


@pytest.mark.parametrize("bad", [_absent, _wrong, _failing, _nan])
def test_auto_passes_over_kernels_that_are_absent_wrong_or_fail(kernels, bad):
    kernels(first=bad, second=_good)
    assert choose_attention(_Gpu(), torch.bfloat16).name == "second"
    with pytest.raises(UsageError) as raised:
        choose_attention(_Gpu(), torch.bfloat16, "first")
    assert "first: " in raised.value.message


def test_auto_takes_the_first_that_agrees(kernels):
    kernels(first=_good, second=_good)
    assert choose_attention(_Gpu(), torch.bfloat16).name == "first"
    assert choose_attention(_Gpu(), torch.bfloat16, "second").name == "second"


def test_no_kernel_at_all_names_every_reason(kernels):
    kernels(first=_absent, second=_failing)
    with pytest.raises(UsageError) as raised:
        choose_attention(_Gpu(), torch.bfloat16)
    assert "flash_attn_interface" in raised.value.message and "no kernel image" in raised.value.message


def test_full_precision_on_a_gpu_takes_the_plain_kernel(kernels):
    kernels(first=_good, sdpa=_good)
    assert choose_attention(_Gpu(), torch.float32).name == "sdpa"


# ------------------------------------------------------------------------------------------------- in 8 bits


def _relative(got, exact):
    return ((got.double() - exact.double()).norm() / exact.double().norm()).item()


def _model_like(tokens=300, heads=2, seed=0):
    return module.model_like(tokens, heads, torch.Generator().manual_seed(seed), CPU, torch.float32)


def test_attention_in_8_bits_is_near_to_exact_attention():
    q, k, v = _model_like()
    exact = module._sdpa(q.double(), k.double(), v.double())
    error = _relative(module.attend_8bit(q, k, v), exact)
    rounded = _relative(module._sdpa(q.bfloat16(), k.bfloat16(), v.bfloat16()), exact)
    assert 3 * rounded < error < module._APPROXIMATE_TOLERANCE


def test_what_all_keys_have_in_common_costs_nothing():
    """It moves all logits of a query alike; rounded with the keys it would drown them."""
    q, k, v = _model_like()
    shift = 30.0 * torch.randn(1, 2, 128, generator=torch.Generator().manual_seed(5))
    exact = module._sdpa(q.double(), k.double(), v.double())
    assert _relative(module.attend_8bit(q, k + shift, v), exact) < 1.1 * _relative(module.attend_8bit(q, k, v), exact)


def test_attention_in_8_bits_is_exact_where_nothing_is_rounded():
    """Whole numbers up to 127 as keys, one query that sees one key, values that FP8 holds."""
    k = torch.zeros(64, 1, 128)
    k[:, 0, :64] = 127 * torch.eye(64)
    q = 127.0 * k
    v = torch.ones(64, 1, 128) * torch.tensor([448.0, 2.0])[torch.arange(128) % 2]
    assert torch.equal(module.attend_8bit(q, k, v), v)


def test_an_approximation_is_used_by_name_only_and_tells_its_error(monkeypatch):
    assert choose_attention(CPU, torch.float32).error == 0.0
    backend = choose_attention(CPU, torch.bfloat16, "emulated8")
    assert 0.005 < backend.error < module._APPROXIMATE_TOLERANCE
    assert backend.label == f"emulated8 (off by {100 * backend.error:.1f} %)"
    q, k, v = (x.bfloat16() for x in _model_like(40))
    assert backend(q, k, v).dtype == torch.bfloat16 and backend(q, k, v).shape == q.shape
    assert not set(module._APPROXIMATE) & set(module._BACKENDS)


@pytest.mark.parametrize("bad", [_absent, _wrong, _failing, _nan])
def test_an_approximation_that_is_wrong_or_fails_is_refused(bad, monkeypatch):
    monkeypatch.setitem(module._APPROXIMATE, "emulated8", bad)
    with pytest.raises(UsageError) as raised:
        choose_attention(CPU, torch.bfloat16, "emulated8")
    assert "emulated8" in raised.value.message and raised.value.hint


def test_sage_is_called_as_its_library_wants(monkeypatch):
    """Tokens before heads, one batch, no mask."""
    import sys
    from types import SimpleNamespace

    def sageattn(q, k, v, tensor_layout="HND", is_causal=False):
        assert tensor_layout == "NHD" and not is_causal and q.shape == (1, 40, 2, 128)
        return module.attend_8bit(q[0], k[0], v[0])[None]

    monkeypatch.setitem(sys.modules, "sageattention", SimpleNamespace(sageattn=sageattn))
    q, k, v = _model_like(40)
    assert torch.equal(module._APPROXIMATE["sage"](CPU)(q, k, v), module.attend_8bit(q, k, v))
