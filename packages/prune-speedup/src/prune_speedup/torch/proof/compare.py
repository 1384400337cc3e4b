"""Compare what two models return."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from types import MappingProxyType
from typing import Any

import torch

from prune_speedup.torch.record.inputs import Found, found_in

__all__ = ["IN_DOUBLE", "Difference", "compare", "tolerance_for"]

IN_DOUBLE = 1e-6
"""What is allowed once a model of single precision is run in double: it may still round inside."""

_NOTHING: Mapping[str, float] = MappingProxyType({})
_TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two results are apart.

    Attributes:
        relative: The largest difference, relative to the largest number of the expected output.
        where: Which output.
        tolerance: What is allowed.
        rounds: Whether both are numbers of one shape, so that rounding may be all that it is.
    """

    relative: float
    where: str
    tolerance: float
    rounds: bool = True

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


def compare(
    expected: Any,
    found: Any,
    tolerance: float | None = None,
    made_of: Mapping[str, float] = _NOTHING,
) -> Difference:
    """The largest difference between two returned structures of the same shape.

    Args:
        expected: What is right.
        found: What is compared with it.
        tolerance: The largest difference allowed, instead of that for each type of numbers.
        made_of: How large the numbers are that some tensors were made of, by path. Where these are
            larger than the tensor, differences are relative to them: so is rounding.
    """
    left = expected if isinstance(expected, Found) else found_in(expected)
    right = found if isinstance(found, Found) else found_in(found)
    worst = Difference(0.0, "", tolerance or 0.0)
    for difference in _differences(left, right, tolerance, made_of):
        if not difference.weight <= worst.weight or not worst.where:
            worst = difference
    return worst


def _differences(
    left: Found, right: Found, tolerance: float | None, made_of: Mapping[str, float]
) -> Iterator[Difference]:
    for before, after in ((left.tensors, right.tensors), (left.aside, right.aside)):
        if before.keys() != after.keys():
            yield Difference(inf, "the outputs have other names", 0.0, rounds=False)
            continue
        for path, tensor in before.items():
            allowed = tolerance if tolerance is not None else tolerance_for(tensor.dtype)
            alike = tensor.shape == after[path].shape and tensor.dtype == after[path].dtype
            gap = _apart(tensor, after[path], made_of.get(path, 0.0)) if alike else inf
            yield Difference(gap, path or "the output", allowed, rounds=alike)
    yield from _plain_differences(left.plain, right.plain, tolerance)


def _plain_differences(
    before: Mapping[str, Any], after: Mapping[str, Any], tolerance: float | None
) -> Iterator[Difference]:
    """How far numbers and texts are apart; a float came of the arithmetic of a model."""
    for path, value in before.items():
        other = after.get(path)
        if isinstance(value, float) and isinstance(other, float):
            allowed = tolerance_for(torch.float32) if tolerance is None else tolerance
            left, right = (
                torch.tensor(each, dtype=torch.float64, device="cpu") for each in (value, other)
            )
            yield Difference(_apart(left, right), path or "the output", allowed)
        elif value != other:
            yield Difference(inf, path or "the output", 0.0)


def _apart(before: torch.Tensor, after: torch.Tensor, made_of: float = 0.0) -> float:
    if not before.numel():
        return 0.0
    if not before.is_floating_point() and not before.is_complex():
        return 0.0 if torch.equal(before, after) else inf
    half = before.itemsize < torch.float32.itemsize  # of eight bits torch promotes none
    wide = torch.float32 if half else torch.promote_types(before.dtype, torch.float32)
    left, right = before.to(wide), after.to(wide)
    gap, scale = (left - right).abs().max().item(), left.abs().max().item()
    if isfinite(gap) and isfinite(scale):
        return float(gap / max(scale, made_of, 1e-12))
    # Infinities of a mask are equal and have no difference, nor have two numbers that are none.
    same = (left == right) | (left.isnan() & right.isnan())
    gap = torch.where(same, torch.zeros_like(left), left - right).abs().max().item()
    finite = left[left.isfinite()].abs()
    scale = finite.max().item() if finite.numel() else 0.0
    return float(gap / max(scale, made_of, 1e-12))
