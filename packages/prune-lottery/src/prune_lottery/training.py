"""Save and restore everything that training changes."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from prune_core.errors import ConfigError
from prune_core.masking import PrunerModuleWrapper
from prune_lottery.module_state import put_module, take_module
from prune_lottery.optimizer_state import put_optimizer, take_optimizer
from prune_toolkit.running.random_state import put_random, take_random

__all__ = ["PARTS", "State", "Stateful", "Training"]

State = dict[str, Any]

PARTS = ("model", "optimizer", "lr_scheduler", "ema", "also", "random")


@runtime_checkable
class Stateful(Protocol):
    """Anything that can hand out what it holds and take it back."""

    def state_dict(self) -> Any:
        """Return what it holds."""

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Take back what `state_dict()` returned."""


class Training:
    """A model, and what else changes while it is trained.

    Args:
        model: The model.
        optimizer: Its optimizer, unless each training makes its own.
        lr_scheduler: The scheduler of that optimizer.
        ema: Averaged weights: a module like `torch.optim.swa_utils.AveragedModel`, or anything
            with `state_dict()` and `load_state_dict()`.
        generators: Generators that draw data, beside the global ones.
        also: Further things with `state_dict()` and `load_state_dict()`, such as a gradient
            scaler, by names of your choice.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: Optimizer | None = None,
        lr_scheduler: Stateful | None = None,
        ema: nn.Module | Stateful | None = None,
        generators: Sequence[torch.Generator] = (),
        also: Mapping[str, Stateful] | None = None,
    ) -> None:
        self.model, self.optimizer, self.ema = model, optimizer, ema
        self.lr_scheduler = lr_scheduler
        self.generators, self.also = tuple(generators), dict(also or {})
        if optimizer is not None and not isinstance(optimizer, Optimizer):
            raise ConfigError(
                f"optimizer is a {type(optimizer).__name__}; it must be a torch.optim.Optimizer. "
                "Other things whose state is to be rewound go into also={'name': thing}."
            )
        named = {"lr_scheduler": lr_scheduler, "ema": ema}
        for name, thing in (named | self.also).items():
            if thing is not None and not isinstance(thing, Stateful):
                raise ConfigError(
                    f"{name} is a {type(thing).__name__}, which has no state_dict() and "
                    "load_state_dict(), so it cannot be rewound."
                )

    def take(self) -> State:
        """Copy the state of everything."""
        return {
            "model": take_module(self.model),
            "optimizer": None if self.optimizer is None else take_optimizer(self.optimizer),
            "lr_scheduler": _taken(self.lr_scheduler),
            "ema": _taken(self.ema),
            "also": {name: _taken(thing) for name, thing in self.also.items()},
            "random": take_random(self.generators),
        }

    def put(self, state: State, parts: Iterable[str] = PARTS) -> None:
        """Put back what `take` took, or some parts of it. The state can be used again."""
        for part in parts:
            stored = state[part]
            if part == "model":
                put_module(self.model, stored)
            elif part == "optimizer" and self.optimizer is not None:
                put_optimizer(self.optimizer, stored)
            elif part == "lr_scheduler":
                _put(self.lr_scheduler, stored)
            elif part == "ema":
                _put(self.ema, stored)
            elif part == "also":
                for name, thing in self.also.items():
                    _put(thing, stored[name])
            elif part == "random":
                put_random(stored, self.generators)

    @torch.no_grad()
    def zero_masked(self, wrappers: Iterable[PrunerModuleWrapper]) -> None:
        """Write zeros where masks hide a value: into the weights, and into what follows them."""
        averages = self._averages()
        for wrapper in wrappers:
            for name, mask in wrapper.masks.items():
                parameter = wrapper.module.get_parameter(name)
                # A momentum that goes on would lead a pruned weight away from zero again.
                followers = self._followers(parameter)
                if parameter in averages:
                    followers.append(averages[parameter])
                for tensor in (parameter, *followers):
                    tensor.masked_fill_(~mask.to(tensor.device), 0.0)

    @torch.no_grad()
    def restart_average(self) -> None:
        """Let averaged weights begin at the weights that the model has now."""
        for parameter, average in self._averages().items():
            average.copy_(parameter)

    def forget_steps(self) -> None:
        """Clear the optimizer's state, such as momenta; its hyperparameters stay."""
        if self.optimizer is not None:
            self.optimizer.state.clear()
        self.model.zero_grad(set_to_none=True)

    def _averages(self) -> dict[Tensor, Tensor]:
        """Pair parameters with their averages, in order, as `AveragedModel` does."""
        if not isinstance(self.ema, nn.Module):
            return {}
        own, averaged = list(self.model.parameters()), list(self.ema.parameters())
        if [p.shape for p in own] != [p.shape for p in averaged]:
            return {}
        return dict(zip(own, averaged, strict=True))

    def _followers(self, parameter: nn.Parameter) -> list[Tensor]:
        state = {} if self.optimizer is None else self.optimizer.state.get(parameter, {})
        return [t for t in state.values() if isinstance(t, Tensor) and t.shape == parameter.shape]


def _taken(thing: Any) -> Any:
    if thing is None:
        return None
    return take_module(thing) if isinstance(thing, nn.Module) else copy.deepcopy(thing.state_dict())


def _put(thing: Any, state: Any) -> None:
    if isinstance(thing, nn.Module):
        put_module(thing, state)
    elif thing is not None:
        thing.load_state_dict(copy.deepcopy(state))
