"""The base class of pruners that delegate the masks to a one-shot pruner."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from prune_core import ConfigError, Pruner, get_pruner, unwrap
from prune_core.masking import Masks
from prune_schedule.store.trials import Trials
from prune_speedup.search.rules import AMOUNTS
from prune_toolkit.results import reached_config

__all__ = ["DelegatingPruner", "one_shot_class", "set_sparsity"]


def one_shot_class(algorithm: str | Callable[..., Any]) -> Callable[..., Any]:
    """Return the class behind a registered name, or the class itself."""
    if isinstance(algorithm, str):
        found: Callable[..., Any] = get_pruner(algorithm, framework="torch")
        return found
    if not callable(algorithm):
        raise ConfigError(
            f"pruning_algorithm is {algorithm!r}; it must be the name of a registered pruner, such "
            "as 'level', or a pruner class."
        )
    return algorithm


def set_sparsity(settings: dict[str, Any], sparsity: float) -> None:
    """Write a sparsity into the settings of a wrapper, under every name it is read by."""
    for key in AMOUNTS:
        settings[key] = sparsity


class DelegatingPruner(Pruner):
    """Delegates wrappers, masks and model to a one-shot pruner.

    A subclass sets `one_shot` in `reset()`. There is one set of wrappers and one flag that says
    whether the model is wrapped, those of `one_shot`, so the two pruners cannot disagree.

    Attributes:
        one_shot: The pruner that makes the masks.
        trials: What was tried.
    """

    one_shot: Pruner
    trials: Trials

    def __getattr__(self, name: str) -> Any:
        if name == "one_shot" or name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.one_shot, name)

    def _make_one_shot(
        self, algorithm: str | Callable[..., Any], arguments: Mapping[str, Any], *fixed: Any
    ) -> None:
        # The old one lets go of its model first: a model is wrapped by one pruner at a time.
        if "one_shot" in self.__dict__:
            self.one_shot.unwrap()
        made = one_shot_class(algorithm)(*fixed, **arguments)
        if not isinstance(made, Pruner):
            raise ConfigError(
                f"pruning_algorithm {algorithm!r} makes a {type(made).__name__}; a schedule needs "
                "one that derives from prune_core.Pruner, to tell it how sparse each layer becomes."
            )
        self.one_shot = made

    def wrap(self) -> nn.Module:
        """Put the wrappers in, and return the model."""
        return self.one_shot.wrap()

    def unwrap(self) -> nn.Module:
        """Take the wrappers out, zeros where masks were, and return the model."""
        return self.one_shot.unwrap()

    def _close(self, example_inputs: Any) -> None:
        """Mask what follows masked channels, so that the model computes what removal will leave."""
        allocator = getattr(self.one_shot, "sparsity_allocator", None)
        # What has been recorded already need not be recorded in every round.
        self.close_masks(example_inputs, getattr(allocator, "coupling", None))

    @property
    def sparsities(self) -> dict[str, float]:
        """The sparsity that each layer has reached."""
        return {
            name: wrapper.masked_count(wrapper.target)
            / wrapper.module.get_parameter(wrapper.target).numel()
            for name, wrapper in self.get_modules_wrapper().items()
        }

    @property
    def reached_config(self) -> list[dict[str, Any]]:
        """What is in force, as a `config_list` with an entry for each layer."""
        return reached_config(self.get_modules_wrapper(), self.sparsities)

    @abstractmethod
    def get_best_result(
        self,
    ) -> tuple[int, nn.Module, Masks, float | None, list[dict[str, Any]]]:
        """Return number, model, masks, score and config of the result, as NNI does."""

    def _finished(self, example_inputs: Any = None) -> tuple[nn.Module, Masks]:
        """Return a copy without wrappers, made small if an input is given, and masks left."""
        model, masks = unwrap(copy.deepcopy(self.bound_model)), self.masks
        if example_inputs is None:
            return model, masks
        from prune_core.speedup import shrink  # tracing is imported when it is used

        return model, shrink(model, example_inputs, masks).masks

    def clear_model_references(self) -> None:
        """Let go of the model, for example to free its memory."""
        self.one_shot.clear_model_references()

    def update_epoch(self, epoch: int) -> None:
        """Tell the one-shot pruner that an epoch begins."""
        self.one_shot.update_epoch(epoch)

    def step(self) -> None:
        """Tell the one-shot pruner of an optimizer step."""
        self.one_shot.step()
