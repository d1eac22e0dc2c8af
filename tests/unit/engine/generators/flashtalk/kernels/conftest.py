"""Where Triton's kernels run in these tests: in its interpreter on the CPU, or compiled on a GPU where there is one."""

import importlib.util
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk.kernels.registry import is_interpreted  # noqa: E402

_ROUNDING = Path(__file__).parents[5] / "fixtures" / "triton_rounding.py"


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
        spec = importlib.util.spec_from_file_location("triton_rounding", _ROUNDING)
        rounding = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(rounding)
        rounding.round_to_nearest(monkeypatch.setattr)
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield
