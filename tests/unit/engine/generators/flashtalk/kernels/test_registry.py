"""Which kernels are used: those that were asked for, and of them those that agree with their plain forms."""

import logging

import pytest

torch = pytest.importorskip("torch")

from engine.errors import UsageError  # noqa: E402
from engine.generators.flashtalk.kernels import registry  # noqa: E402
from engine.generators.flashtalk.kernels.catalog import DIT_KERNELS  # noqa: E402
from engine.generators.flashtalk.kernels.registry import EAGER, FusedKernel, choose_kernels, errors_of  # noqa: E402

CPU = torch.device("cpu")
ROWS, WIDTH = 1000, 1000


def _scaled(x, scale):
    return (x * scale,)


def _samples(generator, device, dtype):
    x = torch.randn(ROWS, WIDTH, generator=generator, device=device).to(dtype)
    return [(x, torch.randn(WIDTH, generator=generator, device=device).to(dtype))]


def _kernel(function, name="scaled"):
    return FusedKernel(name=name, eager=_scaled, load=lambda: function, samples=_samples)


@pytest.fixture(autouse=True)
def _kernels_are_tried_here(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")


def _once_more_rounded(x, scale):
    return ((x.float() * scale.float()).to(x.dtype),)


def _one_element(x, scale):
    out = x * scale
    out[-1, -1] += 1.0
    return (out,)


def _one_row(x, scale):
    out = x * scale
    out[ROWS // 2] = out[ROWS // 2 - 1]
    return (out,)


def _doubled_rounding(x, scale):
    return ((x * scale).to(torch.float8_e4m3fn).to(x.dtype),)


def _not_written(x, scale):
    out = torch.empty_like(x)
    out[:-1] = x[:-1] * scale
    return (out,)


def _no_number(x, scale):
    return (x * scale * float("nan"),)


def _other_precision(x, scale):
    return ((x * scale).float(),)


def _other_shape(x, scale):
    return ((x * scale)[:-1],)


def _in_place(x, scale):
    return (x.mul_(scale),)


def _fails(x, scale):
    raise RuntimeError("no kernel image is available")


def test_a_kernel_that_agrees_takes_the_place_of_its_twin():
    kernel = _kernel(_once_more_rounded)
    kernels = choose_kernels([kernel], "all", CPU, torch.bfloat16)
    assert kernels[kernel] is _once_more_rounded and kernel in kernels and not kernels.refused


BAD = [_one_element, _one_row, _doubled_rounding, _not_written, _no_number, _other_precision, _other_shape, _in_place]


@pytest.mark.parametrize("bad", [*BAD, _fails])
def test_a_kernel_that_is_wrong_or_fails_is_switched_off_and_told(bad, caplog):
    good, wrong = _kernel(_once_more_rounded, "good"), _kernel(bad, "wrong")
    with caplog.at_level(logging.WARNING):
        kernels = choose_kernels([wrong, good], "all", CPU, torch.bfloat16)
    assert kernels[wrong] is _scaled and wrong not in kernels and good in kernels
    assert list(kernels.refused) == ["wrong"] and kernels.refused["wrong"]
    assert len(caplog.records) == 1 and "wrong: " in caplog.text


def test_what_cannot_be_imported_is_no_error():
    def load():
        raise ModuleNotFoundError("No module named 'triton'")

    kernel = FusedKernel(name="absent", eager=_scaled, load=load, samples=_samples)
    kernels = choose_kernels([kernel], "all", CPU, torch.bfloat16)
    assert kernels[kernel] is _scaled and "triton" in kernels.refused["absent"]


def test_without_a_word_no_kernel_is_used_that_no_gpu_has_shown_right(monkeypatch):
    kernel = _kernel(_once_more_rounded)
    for wanted in ("auto", "none"):
        assert kernel not in choose_kernels([kernel], wanted, CPU, torch.bfloat16)

    class Gpu:
        type = "cuda"

    assert not registry._is_wanted(kernel, "auto", Gpu())
    monkeypatch.setattr(registry, "PROVEN", frozenset({"scaled"}))
    assert registry._is_wanted(kernel, "auto", Gpu()) and not registry._is_wanted(kernel, "none", Gpu())


def test_on_a_cpu_kernels_run_in_the_interpreter_only(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    kernel = _kernel(_once_more_rounded)
    assert choose_kernels([kernel], "all", CPU, torch.bfloat16)[kernel] is _scaled


def test_an_unknown_choice_is_refused_with_the_known_ones():
    with pytest.raises(UsageError) as raised:
        choose_kernels([], "most", CPU, torch.bfloat16)
    assert "most" in raised.value.message and "auto" in raised.value.hint


def test_names_are_unique_and_twins_stand_in_by_default():
    assert len({kernel.name for kernel in DIT_KERNELS}) == len(DIT_KERNELS)
    assert all(EAGER[kernel] is kernel.eager for kernel in DIT_KERNELS)


def test_errors_are_relative_to_the_exact_result():
    exact = torch.tensor([3.0, 4.0])
    errors = errors_of(torch.tensor([3.0, 4.5]), exact)
    assert errors.relative == pytest.approx(0.1) and errors.largest == pytest.approx(0.5 / 12.5**0.5)
