"""Where Triton's kernels run in these tests: in its interpreter on the CPU, or compiled on a GPU where there is one."""

import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk.kernels.registry import is_interpreted  # noqa: E402


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def kernel_device(request, monkeypatch) -> "torch.device":
    """A device on which Triton's kernels run."""
    pytest.importorskip("triton", reason="Triton makes the fused kernels")
    if request.param == "cuda":
        if is_interpreted() or not torch.cuda.is_available():
            pytest.skip("needs a CUDA device and TRITON_INTERPRET=0")
    elif not is_interpreted():
        pytest.skip("Triton compiles here, and needs TRITON_INTERPRET=1 to run on the CPU")
    else:
        _round_to_nearest(monkeypatch)
    return torch.device(request.param)


def _round_to_nearest(monkeypatch):
    """The interpreter cuts float32 off where it makes bfloat16 of it; GPUs round to the nearest, ties to even."""
    import numpy as np
    import triton.language as tl
    from triton.runtime import interpreter

    cut = interpreter._convert_float

    def convert(values, source, target, mode):
        if (source, target) != (tl.float32, tl.bfloat16):
            return cut(values, source, target, mode)
        rounded = torch.from_numpy(np.ascontiguousarray(values)).view(torch.float32).bfloat16()
        return rounded.view(torch.int16).numpy().view(np.uint16).reshape(values.shape)

    monkeypatch.setattr(interpreter, "_convert_float", convert)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield
