"""Where Triton's kernels run in these tests: in its interpreter on the CPU, or compiled on a GPU where there is one."""

import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk.kernels.registry import is_interpreted  # noqa: E402


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def kernel_device(request, monkeypatch, fixture_module) -> "torch.device":
    """A device on which Triton's kernels run."""
    pytest.importorskip("triton", reason="Triton makes the fused kernels")
    if request.param == "cuda":
        if is_interpreted() or not torch.cuda.is_available():
            pytest.skip("needs a CUDA device and TRITON_INTERPRET=0")
    elif not is_interpreted():
        pytest.skip("Triton compiles here, and needs TRITON_INTERPRET=1 to run on the CPU")
    else:
        fixture_module("triton_rounding").round_to_nearest(monkeypatch.setattr)
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield
