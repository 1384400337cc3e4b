"""Masks by any registered algorithm, at any sparsity, without putting them in force."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from prune_core.errors import ConfigError, PruneError
from prune_core.masking import Masks, PrunerModuleWrapper
from prune_core.pruning import Pruner
from prune_core.registry import get_pruner
from prune_toolkit.basic import BasicPruner
from prune_toolkit.from_training import follower, with_data

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
        self.pruner = algorithm(model, config_list, **with_data(algorithm, params))
        if not isinstance(self.pruner, Pruner):
            raise ConfigError(
                f"pruning_algorithm {algorithm!r} makes a {type(self.pruner).__name__}; a lottery "
                "needs one that derives from prune_core.Pruner."
            )
        try:
            self._follower = follower(self.pruner)
        except ConfigError:
            self.pruner.unwrap()
            raise
        self.final = {n: float(w.config["sparsity"]) for n, w in self.wrappers.items()}

    @property
    def wrappers(self) -> dict[str, PrunerModuleWrapper]:
        """The wrappers that are in the model, by the names of their modules."""
        return dict(self.pruner.get_modules_wrapper())

    @contextmanager
    def following(self) -> Iterator[None]:
        """Collect data from a training, if the criterion needs any and has no other source."""
        self.follow()
        try:
            yield
        finally:
            self.stop()

    def stop(self) -> None:
        """Stop collecting; keep what has been collected."""
        if self._follower is not None:
            self._follower.stop()

    def follow(self) -> None:
        """Start collecting from the training of a new round."""
        if self._follower is not None:
            self._follower.reset()
            self._follower.follow()

    @property
    def gathered(self) -> dict[str, Any]:
        """What has been collected since masks were made, for a checkpoint."""
        return {} if self._follower is None else self._follower.state_dict()

    @gathered.setter
    def gathered(self, state: Mapping[str, Any]) -> None:
        if self._follower is not None and state:
            self._follower.load_state_dict(state)

    def masks(self, sparsity: Mapping[str, float]) -> Masks:
        """Return masks at the given sparsity of each module; those in force stay in force."""
        if self._follower is not None and (missing := self._follower.lacking()):
            raise PruneError(
                f"{type(self.pruner).__name__} needs data from the training, and the round "
                f"before has provided none for {missing[0]!r}. Its training has to run the model "
                "in training mode and with backward(); or give pruning_params={'calibrate': …}, a "
                "function that takes the model and runs it on some batches."
            )
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
