"""Masks by any registered algorithm, at any sparsity, without putting them in force."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from prune_core.errors import ConfigError
from prune_core.masking import PrunerModuleWrapper
from prune_core.pruning import BasicPruner, Pruner
from prune_core.pruning.allocate import Masks
from prune_core.registry import get_pruner

__all__ = ["Algorithm", "Criterion", "find_algorithm"]

Algorithm = str | Callable[..., Pruner]


def find_algorithm(algorithm: Algorithm) -> Callable[..., Pruner]:
    """Return what makes a pruner, by its name or as it is: a class, or a function like one."""
    found: Any = algorithm
    if isinstance(algorithm, str):
        found = get_pruner(algorithm, framework="torch")
    if not callable(found) or (isinstance(found, type) and not issubclass(found, Pruner)):
        raise ConfigError(
            f"pruning_algorithm is {algorithm!r}; it must be the name of a registered pruner, such "
            "as 'level', or a class that derives from prune_core.Pruner."
        )
    made: Callable[..., Pruner] = found
    return made


class Criterion:
    """Wraps a model with a base pruner, and asks that one for masks at the sparsity of a round.

    Args:
        model: The model, wrapped in place.
        config_list: The rules, with the final sparsities.
        algorithm: The base pruner.
        params: Further arguments of the base pruner.
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        algorithm: Callable[..., Pruner],
        params: Mapping[str, Any],
    ) -> None:
        self.pruner = algorithm(model, config_list, **params)
        if not isinstance(self.pruner, Pruner):
            raise ConfigError(
                f"pruning_algorithm {algorithm!r} makes a {type(self.pruner).__name__}; a lottery "
                "needs one that derives from prune_core.Pruner."
            )
        self.final = {n: float(w.config["sparsity"]) for n, w in self.wrappers.items()}

    @property
    def wrappers(self) -> dict[str, PrunerModuleWrapper]:
        """The wrappers that are in the model, by the names of their modules."""
        return dict(self.pruner.get_modules_wrapper())

    def masks(self, sparsity: Mapping[str, float]) -> Masks:
        """Return masks at the given sparsity of each module; those in force stay in force."""
        for name, wrapper in self.wrappers.items():
            for key in ("sparsity", "sparsity_per_layer", "total_sparsity"):
                wrapper.config[key] = sparsity[name]
        pruner = self.pruner
        if isinstance(pruner, BasicPruner) and type(pruner).compress is BasicPruner.compress:
            scores = pruner.score()
            if pruner.sparsity_allocator is not None:
                return pruner.sparsity_allocator.generate_sparsity(scores)
        before = pruner.masks
        try:
            _, masks = pruner.compress()
        finally:
            pruner.load_masks(before)
        return masks
