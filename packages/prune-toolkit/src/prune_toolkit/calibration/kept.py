"""What is kept of the calls of a model, so that parts of it can be run again."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from prune_toolkit.calibration.store import Keep

__all__ = ["Batch", "Kept"]

_PLAIN = (int, float, complex, bool, str, bytes, type(None), torch.dtype, torch.device)


class Kept(NamedTuple):
    """Something that a step is called with, and the device of a tensor."""

    value: Any
    device: torch.device | None

    def fresh(self) -> Any:
        """Return a copy that a step may write into."""
        if self.device is not None:
            moved = self.value.to(self.device)
            return moved.clone() if moved is self.value else moved
        return self.value if isinstance(self.value, _PLAIN) else copy.deepcopy(self.value)

    @classmethod
    def of(cls, value: Any, keep: Keep) -> Self:
        """Keep a value as it is now; a key/value cache, say, as it was before the model wrote."""
        if isinstance(value, Tensor):
            with torch.inference_mode(False):
                return cls(keep(value.detach()), value.device)
        return cls(value if isinstance(value, _PLAIN) else copy.deepcopy(value), None)


@dataclass
class Batch:
    """What is kept of one call of the model.

    Attributes:
        forms: For each step the nested tuples and dicts that it is called with, without leaves.
        constants: Leaves that depend on nothing pruned, by step and place.
        values: What steps returned that is needed again, by the number of the value.
        tokens: Which tokens are no padding.
        call: What the model was called with, if a step has to be reached through it.
    """

    forms: dict[int, Any] = field(default_factory=dict)
    constants: dict[tuple[int, int], Kept] = field(default_factory=dict)
    values: dict[int, Kept] = field(default_factory=dict)
    tokens: Kept | None = None
    call: tuple[Any, list[Kept]] | None = None
