"""Fused kernels: what one is, how one is checked on the card it shall run on, and which of them are used.

A kernel is defined by its eager twin, a plain function of tensors that runs everywhere. The fused implementation takes
the twin's place only where it compiles and its error against float64 is no more than `ERROR_RATIO` times the twin's
own in the same precision. Kernels that no GPU has shown right yet are used only where that is asked for.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from engine.errors import UsageError

logger = logging.getLogger(__name__)

CHOICES = ("auto", "all", "none", "compile")
"""auto: those proven on a GPU; all: every one that passes its check; none: the eager twins; compile: torch.compile
makes them from the twins, checked like the others."""
PROVEN: frozenset[str] = frozenset()
"""Names of kernels that were right and faster on a real GPU; what `auto` uses. None has run on one yet."""
ERROR_RATIO = 1.1
_LARGEST_RATIO = 3.0
"""Of single elements: two roundings in other places differ by this much at most, one wrong element by far more."""
_SPOILED_ON_CPU = 8
_FLOOR = 2e-6
"""Relative errors below this are those of float32, whatever the twin's own."""

Function = Callable[..., Any]
Samples = Callable[[torch.Generator, torch.device, torch.dtype], list[tuple[Any, ...]]]


@dataclass(frozen=True, kw_only=True, eq=False)
class FusedKernel:
    """A function in two forms. `load` imports the fused one and may raise anything where it cannot be had.

    `samples` draws argument tuples of the twin in representative widths, one of them at least with a number of rows
    that fills no block. Results are a tensor or a tuple of tensors; arguments are never written to. A kernel that
    `is_compilable` may also be made of its twin by torch.compile.

    Where the twin itself rounds coarsely, `exact` is the function that it stands for, and `values` reads such a result
    as numbers that can be held against that function's: errors are then those of the rounding, too.
    """

    name: str
    eager: Function
    load: Callable[[], Function]
    samples: Samples
    is_compilable: bool = True
    exact: Function | None = None
    values: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]] = tuple


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """Which kernels are fused here. `kernels[KERNEL]` is the function to call, its twin unless it is `active`.

    `refused`: why others are not, by name, of those that were tried.
    """

    active: Mapping[str, Function] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, kernel: FusedKernel) -> Function:
        """The function that stands for `kernel`."""
        return self.active.get(kernel.name, kernel.eager)

    def __contains__(self, kernel: FusedKernel) -> bool:
        """Whether `kernel` is fused here."""
        return kernel.name in self.active


EAGER = Kernels()
"""No kernel is fused."""


def choose_kernels(kernels: Iterable[FusedKernel], wanted: str, device: torch.device, dtype: torch.dtype) -> Kernels:
    """Those of `kernels` that `wanted` (one of `CHOICES`) allows and that pass `check` on `device` in `dtype`.

    Says once which were refused. Raises `UsageError` for another choice.
    """
    if wanted not in CHOICES:
        raise UsageError(f'"{wanted}" is no choice of kernels.', hint=f"Choose one of: {', '.join(CHOICES)}.")
    tried = [kernel for kernel in kernels if _is_wanted(kernel, wanted, device)]
    active: dict[str, Function] = {}
    refused: dict[str, str] = {}
    started_s = time.perf_counter()
    for kernel in tried:
        try:
            function = torch.compile(kernel.eager, dynamic=False) if wanted == "compile" else kernel.load()
            function = _on_device(function, device)
            check(kernel, function, device, dtype)
        except Exception as error:  # noqa: BLE001 - compilers and drivers refuse in any way they like
            refused[kernel.name] = (str(error) or type(error).__name__).split("\n")[0]
        else:
            active[kernel.name] = function
    if tried:
        checked_ms = 1000 * (time.perf_counter() - started_s)
        logger.info("fused kernels: %s (compiled and checked in %.0f ms)", ", ".join(active) or "none", checked_ms)
    if refused:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        logger.warning("fused kernels that are not used, their plain forms are: %s", reasons)
    return Kernels(active=active, refused=refused)


def _is_wanted(kernel: FusedKernel, wanted: str, device: torch.device) -> bool:
    if wanted == "compile":
        return kernel.is_compilable
    if device.type != "cuda":
        return wanted == "all" and is_interpreted()
    return wanted == "all" or (wanted == "auto" and kernel.name in PROVEN)


def _on_device(function: Function, device: torch.device) -> Function:
    """Triton launches on the current device, which need not be the one that the tensors are on."""
    if device.type != "cuda" or torch.cuda.device_count() == 1:
        return function

    def launch(*arguments: Any) -> Any:
        with torch.cuda.device(device):
            return function(*arguments)

    return launch


def is_interpreted() -> bool:
    """Whether Triton's kernels run in its interpreter, on the CPU and very slowly: for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Against float64, of one result: `relative` is ‖a - b‖ / ‖b‖, `largest` max|a - b| over b's root mean square."""

    relative: float
    largest: float


def errors_of(got: Tensor, exact: Tensor) -> Errors:
    """Of `got` against `exact` in float64."""
    difference = got.double() - exact.double()
    norm = exact.double().square().mean().sqrt().clamp_min(1e-30)
    return Errors(
        relative=(difference.square().mean().sqrt() / norm).item(), largest=(difference.abs().max() / norm).item()
    )


def check(kernel: FusedKernel, function: Function, device: torch.device, dtype: torch.dtype) -> None:
    """Raises `RuntimeError` unless `function` is as near to float64 as the twin in `dtype` is, on random input."""
    generator = torch.Generator(device).manual_seed(0)
    for arguments in kernel.samples(generator, device, dtype):
        exact = tensors_of((kernel.exact or kernel.eager)(*_converted(arguments, torch.float64)))
        plain = tensors_of(kernel.eager(*arguments))
        before = [value.clone() for value in arguments if isinstance(value, Tensor)]
        _poison(plain)
        got = tensors_of(function(*arguments))
        if [(x.shape, x.dtype) for x in got] != [(x.shape, x.dtype) for x in plain]:
            raise RuntimeError("its result has another shape or precision")
        after = (value for value in arguments if isinstance(value, Tensor))
        if not all(torch.equal(a, b) for a, b in zip(before, after, strict=True)):
            raise RuntimeError("it writes to what it reads")
        for mine, twins, right in zip(kernel.values(got), kernel.values(plain), exact, strict=True):
            _compare(errors_of(mine, right), errors_of(twins, right))


def tensors_of(result: Any) -> tuple[Tensor, ...]:
    """A kernel's result as a tuple."""
    return (result,) if isinstance(result, Tensor) else tuple(result)


def _compare(got: Errors, plain: Errors) -> None:
    # Written so that what is no number does not pass.
    if not got.relative <= ERROR_RATIO * plain.relative + _FLOOR:
        raise RuntimeError(f"its error is {got.relative:.3g}, the plain form's {plain.relative:.3g}")
    if not got.largest <= _LARGEST_RATIO * plain.largest + 10 * _FLOOR:
        raise RuntimeError(f"its largest error is {got.largest:.3g}, the plain form's {plain.largest:.3g}")


def _converted(arguments: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    return tuple(
        value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value for value in arguments
    )


def _poison(results: tuple[Tensor, ...]) -> None:
    """Leave no right values in memory that is handed out next: what a kernel forgets to write must show. A GPU's
    allocator hands out the block of that size that came back last, the processor's one of several."""
    spoiled = [
        torch.full_like(x, float("nan") if x.is_floating_point() else 77)
        for x in results
        for _ in range(_SPOILED_ON_CPU if x.device.type == "cpu" else 1)
    ]
    del spoiled
