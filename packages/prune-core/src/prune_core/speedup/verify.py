"""Compare what two models return."""

from dataclasses import dataclass
from typing import Any

import torch

from prune_core.graph.inputs import tensors_in

__all__ = ["Difference", "compare", "tolerance_for"]

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
