"""Know which results follow from those that were compared.

In `relu(a + b)` two models with the same `a` and `b` have the same sum, and the same of that, where
the same channels of `a` and of `b` stay, and until somebody writes to them.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple
from weakref import ref as weakref

import numpy as np
import torch

from prune_speedup.engine.labels import Array
from prune_speedup.torch.record.operators import Operator

__all__ = ["Following", "Told"]

Told = tuple[tuple[Any, ...], Mapping[str, Any]]
"""The arguments of a call."""

_PLAIN = frozenset({int, float, bool, str, type(None), torch.dtype})
"""Types of what a call can be told beside tensors, of which it is seen whether it is the same."""


_ALL: Mapping[int, Array] = {}


class _Compared(NamedTuple):
    """A result that was compared.

    Attributes:
        tensor: It.
        source: The entry of its call, and which of the results of that it is.
        kept: What stays of it, by axis.
        memory: What is otherwise once somebody has written there, or given it other memory.
    """

    tensor: weakref[torch.Tensor]
    source: tuple[int, int]
    kept: Mapping[int, Array]
    memory: tuple[int, int, int]


class Following:
    """The results that two runs have in common, as far as is known."""

    def __init__(self) -> None:
        """Know of none."""
        self._compared: dict[int, _Compared] = {}
        self._writes: dict[int, int] = {}

    def source(self, operator: Operator, told: Told) -> tuple[Any, ...] | None:
        """What a result comes of, if that is compared results alone and what numbers it is told."""
        if not operator.is_pointwise:
            return None
        args, kwargs = told
        source: list[Any] = [*kwargs]
        for each in (*args, *kwargs.values()):
            if not isinstance(each, torch.Tensor):
                if type(each) not in _PLAIN:
                    return None
                source.append(each)
                continue
            known = self._compared.get(id(each))
            # Another tensor may have got the identity of one that is gone.
            if known is None or known.tensor() is not each or known.memory != self._memory_of(each):
                return None
            source.append(("made by", known.source))
        return tuple(source)

    def stay_together(
        self,
        result: torch.Tensor,
        kept: Mapping[int, Array],
        told: Told,
    ) -> bool:
        """Whether of all that a result comes of the same indices stay as of itself.

        Axes are counted from the last one, as for what is spread over more of them.
        """
        args, kwargs = told
        stays = {axis - result.ndim: indices for axis, indices in kept.items()}
        for each in (*args, *kwargs.values()):
            if isinstance(each, torch.Tensor):
                known = self._compared.get(id(each))
                if known is None:
                    return False
                its = {axis - each.ndim: indices for axis, indices in known.kept.items()}
                for axis in stays.keys() | its.keys():
                    spread = -axis > each.ndim or each.shape[axis] == 1
                    if not spread and not _are_same(stays.get(axis), its.get(axis)):
                        return False
        return True

    def note(
        self, tensor: torch.Tensor, source: tuple[int, int], kept: Mapping[int, Array] = _ALL
    ) -> None:
        """Know a result that was compared, or that follows from such."""
        memory = self._memory_of(tensor)
        self._compared[id(tensor)] = _Compared(weakref(tensor), source, kept, memory)

    def note_writes(self, operator: Operator, told: Told) -> None:
        """Know that a call has written to what it was given."""
        if operator.writes:
            strided = [each for each in operator.written(*told) if each.layout is torch.strided]
            for tensor in strided:
                storage = tensor.untyped_storage()._cdata
                self._writes[storage] = self._writes.get(storage, 0) + 1

    def _memory_of(self, tensor: torch.Tensor) -> tuple[int, int, int]:
        storage = tensor.untyped_storage()._cdata
        return storage, tensor.data_ptr(), self._writes.get(storage, 0)


def _are_same(one: Array | None, other: Array | None) -> bool:
    """Whether two sets of indices that stay are the same; none is given where all do."""
    if one is None or other is None:
        return one is other
    return one is other or np.array_equal(one, other)
