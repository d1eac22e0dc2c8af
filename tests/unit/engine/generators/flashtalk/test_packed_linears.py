"""Layers packed to one product: the same numbers, the same memory, and layers that can still be called singly."""

import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk.packed_linears import pack_linears  # noqa: E402
from engine.generators.flashtalk.quantization.linear import QuantizedLinear  # noqa: E402
from engine.generators.flashtalk.quantization.scheme import SCHEMES  # noqa: E402

WIDTH = 32
SIZES = (48, 16, 32)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def _layers(kind, bias=True):
    torch.manual_seed(0)
    plain = [torch.nn.Linear(WIDTH, size, bias=bias) for size in SIZES]
    return plain if kind == "plain" else [QuantizedLinear.of(layer, SCHEMES[kind]) for layer in plain]


def _weight(layer):
    return layer.weight if isinstance(layer, torch.nn.Linear) else layer.quantized


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("kind", ["plain", *SCHEMES])
def test_packed_layers_are_the_layers(kind, bias):
    layers, x = _layers(kind, bias), torch.randn(7, WIDTH)
    wanted = [layer(x) for layer in layers]
    packed = pack_linears(*layers)
    assert packed is not None and packed.holds(*layers)
    for after in range(3):
        for got, single in zip(packed(x, after=after), wanted[after:], strict=True):
            torch.testing.assert_close(got, single, rtol=1e-6, atol=1e-6)
    for layer, single in zip(layers, wanted, strict=True):
        assert torch.equal(layer(x), single)


@pytest.mark.parametrize("kind", ["plain", *SCHEMES])
def test_weights_are_in_memory_once(kind):
    layers = _layers(kind)
    before = {name: value.clone() for layer in layers[:1] for name, value in layer.state_dict().items()}
    pack_linears(*layers)
    assert len({_weight(layer).untyped_storage().data_ptr() for layer in layers}) == 1
    assert _weight(layers[0]).untyped_storage().nbytes() == sum(_weight(layer).nbytes for layer in layers)
    after = layers[0].state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name].view(torch.uint8), before[name].view(torch.uint8)) for name in before)


@pytest.mark.parametrize("kind", ["plain", *SCHEMES])
def test_a_layer_with_other_weights_is_noticed(kind):
    layers = _layers(kind)
    packed = pack_linears(*layers)
    layers[1] = _layers(kind)[1]
    assert not packed.holds(*layers)


def test_layers_of_different_kinds_are_not_packed():
    plain, other = _layers("plain"), _layers("plain")
    quantized = _layers(next(iter(SCHEMES)))
    assert pack_linears(plain[0], quantized[1]) is None
    assert pack_linears(plain[0], other[1].double()) is None
    assert pack_linears(plain[0], torch.nn.Identity()) is None
    assert pack_linears(*_layers("plain", bias=False)[:2], plain[2]) is None
    assert len(SCHEMES) < 2 or pack_linears(*(_layers(kind)[0] for kind in SCHEMES)) is None
