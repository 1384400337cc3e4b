"""Rewind points: the states in which a round can begin."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import torch
from torch import nn

from prune_core.errors import PruneError
from prune_core.masking import PrunerModuleWrapper
from prune_lottery.redraw import constant, reinitialise, reshuffled, with_signs
from prune_lottery.rewind import Rewind
from prune_lottery.training import PARTS, State, Training
from prune_toolkit.running.random_state import put_random, take_random

__all__ = ["RewindPoints"]


class RewindPoints:
    """Keeps the states to rewind to, and rewinds.

    Args:
        training: What changes.
        rewind_random: Whether random numbers start over as well, so that every round sees the
            same data in the same order.
        initialise: Gives a model new initial values, or None for `reset_parameters()`.
    """

    def __init__(
        self,
        training: Training,
        rewind_random: bool,
        initialise: Callable[[nn.Module], object] | None,
    ) -> None:
        self.training = training
        self.initialise = initialise
        self.parts = [part for part in PARTS if rewind_random or part != "random"]
        self.initial: State = training.take()
        self.early: State | None = None

    def at(self, rewind: Rewind) -> State:
        """Return the state to rewind to."""
        if not rewind.step:
            return self.initial
        if self.early is None:
            raise PruneError(
                f"rewind is {rewind.spec!r}, and the first training did not get to step "
                f"{rewind.step} of this_round.steps(); train for longer, or rewind to an earlier "
                "step."
            )
        return self.early

    def go(self, rewind: Rewind, wrappers: Mapping[str, PrunerModuleWrapper], seed: int) -> None:
        """Rewind everything to the beginning of a round, under the current masks."""
        if rewind.kind == "none":
            self.training.model.zero_grad(set_to_none=True)
        elif rewind.keeps_weights:
            weights = ("model", "ema")
            self.training.put(self.at(rewind), [p for p in self.parts if p not in weights])
            self.training.forget_steps()
        else:
            self.training.put(self.at(rewind), self.parts)
            if rewind.redraws:
                self._redraw(rewind, wrappers, seed)
        self.training.zero_masked(wrappers.values())

    @torch.no_grad()
    def _redraw(
        self, rewind: Rewind, wrappers: Mapping[str, PrunerModuleWrapper], seed: int
    ) -> None:
        weights = {name: w.module.get_parameter(w.target) for name, w in wrappers.items()}
        initial = {name: weight.clone() for name, weight in weights.items()}
        if rewind.kind == "reinit":
            self._reinitialise(seed)
            if rewind.signs:
                fresh = {name: weight.clone() for name, weight in weights.items()}
                self.training.put(self.at(rewind), ["model"])
                for name, weight in weights.items():
                    weight.copy_(with_signs(fresh[name], initial[name]))
        else:
            generator = torch.Generator().manual_seed(seed)
            for name, wrapper in wrappers.items():
                if rewind.kind == "constant":
                    values = constant(initial[name], generator)
                else:
                    values = reshuffled(initial[name], wrapper.masks[wrapper.target], generator)
                signed = with_signs(values, initial[name]) if rewind.signs else values
                weights[name].copy_(signed)
        self.training.restart_average()

    def _reinitialise(self, seed: int) -> None:
        before = take_random()
        random.seed(seed)
        torch.manual_seed(seed)
        try:
            reinitialise(self.training.model, self.initialise)
        finally:
            put_random(before)
