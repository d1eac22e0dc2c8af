"""Products of 8-bit numbers against the one that defines them, and a device whose kernels are wrong."""

from __future__ import annotations

import logging

import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk.quantization import products  # noqa: E402
from engine.generators.flashtalk.quantization.products import (  # noqa: E402
    EAGER,
    INTEGER,
    SCALED,
    SCALED_AFTER,
    WIDENED,
    Product,
    choose_product,
    problem_of,
)
from engine.generators.flashtalk.quantization.scheme import (  # noqa: E402
    FP8,
    INT8,
    SCHEMES,
    quantize_tokens,
    quantize_weight,
)

CPU = torch.device("cpu")


def _parts(scheme, rows=70, width=96, out=48):
    random = torch.Generator().manual_seed(1)
    x, w, bias = (torch.randn(*shape, generator=random) for shape in ((rows, width), (out, width), (out,)))
    return (*quantize_tokens(x, scheme), *quantize_weight(w, scheme), bias)


@pytest.mark.parametrize("name", SCHEMES)
def test_the_definition_is_the_sum_written_out(name):
    x, x_scales, w, w_scales, bias = _parts(SCHEMES[name], rows=3, width=16, out=16)
    out = EAGER.compute(x, x_scales, w, w_scales, bias, torch.float32)
    for row in range(3):
        for column in range(16):
            terms = [float(x[row, k]) * float(w[column, k]) for k in range(16)]
            expected = sum(terms) * float(x_scales[row]) * float(w_scales[column]) + float(bias[column])
            assert abs(float(out[row, column]) - expected) <= 1e-6 * (1 + abs(expected))


@pytest.mark.parametrize(("name", "product"), [("fp8", WIDENED), ("int8", WIDENED), ("int8", INTEGER)])
@pytest.mark.parametrize("rows", [1, 31, 70, 4500])
@pytest.mark.parametrize("is_biased", [True, False])
def test_a_product_is_the_defined_one(name, product, rows, is_biased):
    *parts, bias = _parts(SCHEMES[name], rows=rows)
    bias = bias if is_biased else None
    expected = EAGER.compute(*parts, bias, torch.float32)
    out = product.compute(*parts, bias, torch.float32)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
    rounded = product.compute(*parts, bias, torch.bfloat16)
    assert rounded.dtype == torch.bfloat16 and rounded.shape == (rows, 48)
    assert (rounded.float() - expected).abs().max() < 0.01 * expected.abs().max()


def test_integer_sums_are_exact_beyond_what_float32_can_count():
    """127 squared times 13824 is thirteen times 2^24: float32 would not count to there."""
    x = torch.full((40, 13824), 127, dtype=torch.int8)
    w = torch.full((16, 13824), 127, dtype=torch.int8)
    w[1, ::2] = -127
    out = INTEGER.compute(x, torch.ones(40, 1), w, torch.ones(16), None, torch.float32)
    assert out[0, :2].tolist() == [127 * 127 * 13824, 0.0]


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_processor_gets_a_product_that_agrees(name, dtype):
    product = choose_product(SCHEMES[name], CPU, dtype)
    assert problem_of(product, SCHEMES[name], CPU, dtype) is None
    assert product is (WIDENED if name == "fp8" else INTEGER)


@pytest.mark.parametrize("product", [SCALED, SCALED_AFTER], ids=lambda product: product.name)
def test_torchs_fp8_products_take_what_we_give_them(product):
    """The same call as on a GPU, where this torch has it for processors."""
    problem = problem_of(product, FP8, CPU, torch.bfloat16)
    if problem is not None and "differ" not in problem:
        pytest.skip(f"this torch has no such product for a processor: {problem}")
    assert problem is None


def _broken(kind: str) -> Product:
    def compute(x, x_scales, w, w_scales, bias, dtype):
        if kind == "fails":
            raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED when calling\nmore")
        if kind == "no bias":
            bias = None
        elif kind == "one scale":
            x_scales = x_scales.mean().expand_as(x_scales)
        elif kind == "swapped weight scales":
            w_scales = w_scales.flip(0)
        elif kind == "short of the last block":
            x = torch.cat((x.float()[:, :-16], torch.zeros(len(x), 16)), 1).to(x.dtype)
        return EAGER.compute(x, x_scales, w, w_scales, bias, dtype)

    return Product(name=kind, compute=compute, is_native=True)


@pytest.mark.parametrize("kind", ["fails", "no bias", "one scale", "swapped weight scales", "short of the last block"])
@pytest.mark.parametrize("name", SCHEMES)
def test_a_wrong_product_is_named_and_left_for_the_next(kind, name, monkeypatch, caplog):
    monkeypatch.setattr(products, "candidates", lambda *_: (_broken(kind), EAGER))
    with caplog.at_level(logging.WARNING):
        chosen = choose_product(SCHEMES[name], CPU, torch.bfloat16)
    assert chosen is EAGER and len(caplog.records) == 1
    assert kind in caplog.text and ("NOT_SUPPORTED" in caplog.text if kind == "fails" else "differ" in caplog.text)


@pytest.mark.parametrize(
    ("capability", "names"),
    [
        ((9, 0), (["scaled_mm", "scaled_mm, scaled after", "widened"], ["int_mm", "widened"])),
        ((8, 9), (["scaled_mm", "scaled_mm, scaled after", "widened"], ["int_mm", "widened"])),
        ((8, 6), (["widened"], ["int_mm", "widened"])),
    ],
)
def test_a_gpu_is_asked_only_for_what_its_generation_has(capability, names, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    device = torch.device("cuda")
    found = [products.candidates(scheme, device, torch.bfloat16) for scheme in (FP8, INT8)]
    assert tuple([product.name for product in some] for some in found) == names
