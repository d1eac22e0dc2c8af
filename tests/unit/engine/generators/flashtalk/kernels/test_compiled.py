"""The kernels as machine code for GPUs that need not be here: Triton brings compiler and assembler with it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton", reason="Triton makes the fused kernels")

from engine.generators.flashtalk.kernels.catalog import DIT_KERNELS, VAE_KERNELS
from engine.generators.flashtalk.kernels.quantize import QUANTIZING

ROOT = Path(__file__).parents[6]
SHARED_BYTES = 99 * 1024
"""What a block may have on a GeForce card."""


@pytest.mark.slow
def test_every_kernel_compiles_for_ada_and_hopper(tmp_path):
    """In a process of its own: here Triton interprets. 8 bits in what each of the two has at its fastest."""
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    script = ROOT / "tests" / "fixtures" / "compile_kernels.py"
    done = subprocess.run(
        [sys.executable, str(script), "89:int8", "90:fp8"], env=environment, capture_output=True, text=True, timeout=170
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    for capability, kernels in found.items():
        every = (*DIT_KERNELS, *QUANTIZING[capability[3:]].values(), *VAE_KERNELS)
        assert set(kernels) == {kernel.name for kernel in every} - {"linear_gelu", "vae_upsample"}
        for name, code in kernels.items():
            where = f"{name} for {capability}"
            assert code["bytes"] and code["wide_loads"] and not code["local_memory"], where
            assert code["shared_bytes"] <= SHARED_BYTES, where
            assert bool(code["matrix_instructions"]) == (name == "attend_two" or name.endswith("int8")), where
