"""What a model must compute without some blocks: the whole one with them skipped or at zero."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from prune_speedup.engine.graph import name_of
from prune_speedup.torch.depth.calls import Seen
from prune_speedup.torch.depth.flow import Addition
from prune_speedup.torch.depth.standins import Skip
from prune_speedup.torch.record.recorder import Recorder
from prune_speedup.torch.record.source_places import key_of, place_of_call
from prune_speedup.torch.rules import has_rule

__all__ = ["Reference", "skipping"]


class Reference(Recorder):  # type: ignore[no-untyped-call]
    """Runs a whole model and shows its additions zeros in the place of some branches."""

    def __init__(self, model: nn.Module, additions: Collection[Addition]) -> None:
        """Know which sides of which additions are to be zero."""
        super().__init__(model, has_rule)
        self._sides = {(a.module, a.operator, a.place, a.occurrence): a.side for a in additions}
        self._operators = {(a.module, a.operator) for a in additions}
        self._counts: Counter[tuple[Any, ...]] = Counter()
        self.zeroed = 0

    def once(self, example_inputs: Any) -> Any:
        """Run the model once, and count from the beginning."""
        self._counts.clear()
        return super().once(example_inputs)

    def execute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator."""
        if (self.module, name_of(func)) in self._operators:
            key = self.module, name_of(func), key_of(place_of_call())
            side = self._sides.get((*key, self._counts[key]))
            self._counts[key] += 1
            if side is not None and isinstance(args[side], torch.Tensor):
                self.zeroed += 1
                if side == 0 and key[1].endswith("_"):
                    args[0].zero_()  # it is written to, and others go on with it
                else:
                    zero = torch.zeros_like(args[side])
                    args = (*args[:side], zero, *args[side + 1 :])
        return super().execute(func, args, kwargs)


@contextmanager
def skipping(model: nn.Module, names: Collection[str], seen: Mapping[str, Seen]) -> Iterator[None]:
    """Let some modules return their input, while everything else about them stays."""
    modules = [(model.get_submodule(name), seen[name]) for name in names]
    before: list[tuple[nn.Module, Callable[..., Any] | None]] = []
    try:
        for module, how in modules:
            before.append((module, vars(module).get("forward")))
            vars(module)["forward"] = Skip(how.position, how.name, how.form).forward
        yield
    finally:
        for module, own in before:
            vars(module).pop("forward", None)
            if own is not None:
                vars(module)["forward"] = own
