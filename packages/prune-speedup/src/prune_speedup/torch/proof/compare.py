"""Compare what two models return."""

from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import nn

from prune_speedup.torch.record.inputs import tensors_in
from prune_speedup.torch.tensors import put

__all__ = [
    "IN_DOUBLE",
    "Difference",
    "compare",
    "single",
    "tolerance_for",
    "widen",
    "widened",
]

IN_DOUBLE = 1e-6
"""What is allowed once a model of single precision is run in double: it may still round inside."""

_TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two results are apart.

    Attributes:
        relative: The largest difference, relative to the largest number of the expected output.
        where: Which output.
        tolerance: What is allowed.
    """

    relative: float
    where: str
    tolerance: float

    @property
    def weight(self) -> float:
        """How much of what is allowed it takes; all that is no number counts as infinite."""
        if not self.tolerance:
            return inf if self.relative else 0.0
        share = self.relative / self.tolerance
        return inf if share != share else share

    @property
    def ok(self) -> bool:
        """Whether it is within what is allowed; a NaN is not."""
        return self.relative <= self.tolerance


def tolerance_for(dtype: torch.dtype) -> float:
    """What rounding may do to a type of numbers."""
    return _TOLERANCES.get(dtype, 0.0)


def compare(expected: Any, found: Any, tolerance: float | None = None) -> Difference:
    """The largest difference between two returned structures of the same shape."""
    left, right = dict(tensors_in(expected)), dict(tensors_in(found))
    worst = Difference(0.0, "", tolerance or 0.0)
    if left.keys() != right.keys():
        return Difference(float("inf"), "the outputs have other names", 0.0)
    ratio = -1.0
    for path, before in left.items():
        after = right[path]
        allowed = tolerance if tolerance is not None else tolerance_for(before.dtype)
        apart = _apart(before, after)
        weighed = apart / allowed if allowed else (float("inf") if apart else 0.0)
        if not weighed <= ratio:
            ratio = weighed if weighed == weighed else float("inf")
            worst = Difference(apart, path or "the output", allowed)
    return worst


def single(model: nn.Module) -> bool:
    """Whether a model works in single precision, so that double would tell rounding from error."""
    return {p.dtype for p in model.parameters() if p.is_floating_point()} == {torch.float32}


def widen(model: nn.Module) -> None:
    """Give a model its numbers in double precision; a `Snapshot` brings the old ones back."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            put(tensor, tensor.data.double(), None)


def widened(inputs: Any) -> Any:
    """Example inputs in double precision."""
    if isinstance(inputs, torch.Tensor):
        return inputs.double() if inputs.is_floating_point() else inputs
    if isinstance(inputs, dict):
        return {name: widened(item) for name, item in inputs.items()}
    if isinstance(inputs, list | tuple):
        return [widened(item) for item in inputs]
    return inputs


def _apart(before: torch.Tensor, after: torch.Tensor) -> float:
    if before.shape != after.shape or before.dtype != after.dtype:
        return float("inf")
    if not before.numel():
        return 0.0
    if not before.is_floating_point() and not before.is_complex():
        return 0.0 if torch.equal(before, after) else float("inf")
    wide = torch.complex128 if before.is_complex() else torch.float64
    left, right = before.to(wide), after.to(wide)
    same = left == right  # infinities of a mask are equal and have no difference
    gap = torch.where(same, torch.zeros_like(left), left - right).abs().max().item()
    finite = left[left.isfinite()].abs()
    scale = finite.max().item() if finite.numel() else 0.0
    return float(gap / max(scale, 1e-12))
