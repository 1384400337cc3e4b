"""`check_rule`: whether an operator's rule says of its channels what the operator does to them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prune_core.errors import PruneWarning, SpeedupError
from prune_speedup.engine.units import Unit, Units
from prune_speedup.torch.analysis import units
from prune_speedup.torch.speedup import shrink

__all__ = ["check_rule", "removable"]

Shapes = Sequence[tuple[int, ...]]


class _Between(nn.Module):
    """An operator between tensors that can lose any index, and a sum over all that it makes.

        x ──· made.0 ──> (4, 6) ─┐
                                 ├─ operator ──> (4, 3) ──· read ──> y
        x ──· made.1 ──> (6, 3) ─┘

    Only the operator itself ties indices together or keeps them where they are.
    """

    def __init__(self, call: Callable[..., Any], shapes: Shapes) -> None:
        super().__init__()
        self.call = call
        self.made = nn.ParameterList(torch.randn(3, *shape) for shape in shapes)
        example = self._results(torch.randn(2, 3))
        self.read = nn.ParameterList(torch.randn(*each.shape, 2) for each in example)

    def _results(self, x: Tensor) -> list[Tensor]:
        # Products and sums that leave every axis by itself; a matrix product would flatten some.
        given = [(x.mean(0).view(-1, *(1,) * (made.ndim - 1)) * made).sum(0) for made in self.made]
        results = self.call(*given)
        found = results if isinstance(results, tuple | list) else (results,)
        return [each for each in found if each is not None and each.is_floating_point()]

    def forward(self, x: Tensor) -> list[Tensor]:
        results = zip(self._results(x), self.read, strict=True)
        return [(each.unsqueeze(-1) * read).sum(tuple(range(each.ndim))) for each, read in results]


def removable(call: Callable[..., Any], *shapes: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return how many indices of each axis of each input can be removed before an operator.

    >>> removable(lambda x: x.softmax(1), (4, 6))  # each of a row changes all the others
    [(4, 0)]
    """
    return _counts(units(_Between(call, shapes), torch.randn(2, 3)), shapes)


def _counts(found: Units, shapes: Shapes) -> list[tuple[int, ...]]:
    return [
        tuple(
            int(np.count_nonzero(found.axes.get((f"made.{at}", axis + 1), 0)))
            for axis in range(len(shape))
        )
        for at, shape in enumerate(shapes)
    ]


def check_rule(
    call: Callable[..., Any],
    *shapes: tuple[int, ...],
    expected: Sequence[tuple[int, ...]] | None = None,
) -> None:
    """Check the rule of an operator against the operator itself.

    A small network is built around the operator, of which everything else can be removed. Each set
    of indices that the rule ties together is taken out, then half of them all at once, and the
    small network is compared with the one that has zeros there.

    Args:
        call: Calls the operator with one tensor for each shape.
        shapes: Of the tensors.
        expected: How many indices of each axis of each input can go, when that is known: a rule
            that keeps everything is never wrong, and never of use.

    Raises:
        AssertionError: When the small network computes something else, or other indices can go.

    Example:
        ```python
        check_rule(torch.ops.acme.swirl, (4, 6), expected=[(0, 6)])
        ```
    """
    torch.manual_seed(0)
    x = torch.randn(2, 3)
    found = units(_Between(call, shapes), x)
    if found.unknown:
        failed = found.labelling.flow.failed
        for target in found.unknown:
            if target in failed:
                raise AssertionError(f"{failed[target]}.") from failed[target].__cause__
        raise AssertionError(f"there is no rule for {', '.join(found.unknown)}.")
    counts = _counts(found, shapes)
    if expected is not None and counts != list(expected):
        raise AssertionError(f"{counts} can go, and not {list(expected)}.")
    for gone in _sets(found):
        _compare(_Between(call, shapes), x, gone, units=gone)
        _compare(_Between(call, shapes), x, gone, masks={"made": _hidden(found, gone)})


def _sets(found: Units) -> Iterator[list[Unit]]:
    """Yield what is removed together: one unit of each group, then every other one of all."""
    for group in found.groups:
        yield [found.unit(group.labels[-1])]
    if found.groups:
        yield [found.unit(label) for group in found.groups for label in group.labels[::2]]


def _hidden(found: Units, gone: Sequence[Unit]) -> dict[str, Tensor]:
    """Hide units where they are made, and not where they are read.

    Whether the operator makes zeros of these zeros, or something else, is for its rule to say.
    """
    masks: dict[str, Tensor] = {}
    for unit in gone:
        for name, axes in unit.slices.items():
            kind, _, number = name.partition(".")
            if kind == "made":
                mask = masks.setdefault(number, torch.ones(found.shapes[name]))
                for axis, indices in axes.items():
                    mask.index_fill_(axis, torch.tensor(indices), 0.0)
    return masks


def _compare(net: nn.Module, x: Tensor, gone: Sequence[Unit], **how: Any) -> None:
    try:
        with warnings.catch_warnings():
            # The zeros that are hidden may well have to stay.
            warnings.simplefilter("ignore", PruneWarning)
            shrink(net, x, **how)
    except SpeedupError as error:
        slices = [dict(unit.slices) for unit in gone]
        raise AssertionError(f"{next(iter(how))}: without {slices}: {error}") from error
