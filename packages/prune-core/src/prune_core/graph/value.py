"""What a value looks like to the engine: which of its axes carry which labels."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from prune_core.graph.labels import Array

__all__ = ["Group", "Value", "extended", "spread", "squeezed"]


@dataclass(frozen=True, slots=True)
class Group:
    """One label per position along one axis, or along several that can only be cut together.

    Attributes:
        labels: Shaped like the value; stride 0 along every axis that makes no difference, so
            that an array of any size costs no more than its labels.
        zero: Whether the value is zero wherever a removed label stands, once everything that
            carries the label is masked.
    """

    labels: torch.Tensor
    zero: bool = True

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes along which the labels differ."""
        pairs = zip(self.labels.shape, self.labels.stride(), strict=True)
        return tuple(axis for axis, (size, stride) in enumerate(pairs) if stride and size > 1)

    def compact(self) -> Array:
        """The labels with every axis that makes no difference cut to length one."""
        small = self.labels
        axes = self.axes
        for axis in range(small.ndim):
            if axis not in axes and small.shape[axis] != 1:
                small = small.narrow(axis, 0, 1)
        array: Array = small.numpy()
        return array

    def with_zero(self, zero: bool) -> "Group":
        """The same labels with another `zero`."""
        return self if zero == self.zero else Group(self.labels, zero)


@dataclass(slots=True)
class Value:
    """A tensor as the engine sees it.

    An axis is *labelled* when it belongs to a group, *free* when every index along it holds a
    copy of the same thing (an expanded axis, a tensor of zeros), and *fixed* otherwise.

    Attributes:
        shape: The sizes.
        groups: Label arrays; no two of them share an axis.
        free: The free axes.
        pending: Labels that a mean, a variance or the like ran over. They stay removable as long
            as the result only goes, element by element, back to where it came from, which is
            what makes it a normalisation.
    """

    shape: tuple[int, ...]
    groups: tuple[Group, ...] = ()
    free: frozenset[int] = frozenset()
    pending: tuple[Array, ...] = field(default=())

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self.shape)

    def group_at(self, axis: int) -> Group | None:
        """The group that this axis belongs to."""
        axis %= max(self.ndim, 1)
        for group in self.groups:
            if axis in group.axes:
                return group
        return None

    def any_size(self, axis: int) -> bool:
        """Whether nothing is asked of the other operand along this axis."""
        return self.shape[axis] == 1 or axis in self.free


def spread(labels: Array, axis: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Labels along one axis, expanded to a whole shape without using memory."""
    sizes = [1] * len(shape)
    sizes[axis] = len(labels)
    return torch.from_numpy(np.ascontiguousarray(labels)).view(sizes).expand(shape)


def squeezed(labels: torch.Tensor) -> torch.Tensor:
    """The same labels with stride 0 along every axis where they turn out not to differ."""
    small = labels
    for axis, (size, stride) in enumerate(zip(labels.shape, labels.stride(), strict=True)):
        if size > 1 and not stride:
            small = small.narrow(axis, 0, 1)
    for axis, size in enumerate(small.shape):
        if size > 1:
            first = small.narrow(axis, 0, 1)
            if bool((small == first).all()):
                small = first
    return small.expand(labels.shape)


def extended(labels: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Labels of another shape with as many axes, where they differ along no axis that changed."""
    small = labels
    for axis, (size, stride) in enumerate(zip(labels.shape, labels.stride(), strict=True)):
        if size > 1 and not stride:
            small = small.narrow(axis, 0, 1)
    return small.expand(tuple(shape))
