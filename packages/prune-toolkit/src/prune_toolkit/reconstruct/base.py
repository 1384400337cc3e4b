"""The fourth step of a basic pruner: weights that stay make up for what is masked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from prune_core.errors import ConfigError
from prune_toolkit.calibration.calibrate import Calibrate
from prune_toolkit.calibration.statistics import Statistics
from prune_toolkit.parts import make_part

if TYPE_CHECKING:
    from prune_core.masking.rewrite import Rewrites

__all__ = [
    "LayerFit",
    "LayerReconstructor",
    "ModelReconstructor",
    "Reconstruct",
    "Reconstructor",
    "reconstructors",
]


class Reconstructor:
    """Changes weights that stay, or statistics, so that a pruned model computes more as before.

    Args:
        calibrate: Takes the model and runs it on some batches; that of the pruner unless given.
        batches: After how many batches to stop, or None.
    """

    def __init__(self, calibrate: Calibrate | None = None, batches: int | None = None) -> None:
        if calibrate is not None and not callable(calibrate):
            raise ConfigError(
                f"calibrate is {calibrate!r}; it must be a function that takes the model and runs "
                "it on some batches."
            )
        self.calibrate, self.batches = calibrate, batches

    @property
    def settings(self) -> dict[str, Any]:
        """What it was told, but for the calibration."""
        return {name: value for name, value in vars(self).items() if name != "calibrate"}


Reconstruct = str | Reconstructor | type[Reconstructor] | Sequence[Any] | None
"""The name of a registered reconstructor, one made by hand, or several, in their order."""


@dataclass(frozen=True)
class LayerFit:
    """One layer, and what is to become of it.

    Attributes:
        name: Its name.
        module: The layer.
        weight: What it computed with until now, `(groups, outputs, features)`.
        left: What an earlier reconstructor has made of it; without one, what is not masked.
        support: Where its weight may differ from zero from now on, of the same shape.
        statistics: Of the inputs that it had until now.
    """

    name: str
    module: nn.Module
    weight: Tensor
    left: Tensor
    support: Tensor
    statistics: Statistics


class LayerReconstructor(Reconstructor, ABC):
    """Works on layers, one by one.

    Attributes:
        products: Whether it needs the Gram matrix of a layer's inputs, not only their means.
    """

    products: ClassVar[bool] = False

    @abstractmethod
    def fit(self, layer: LayerFit) -> tuple[Tensor, Tensor | None]:
        """Return the layer's new weight, and what its bias has to make up for, or None.

        The second is one number for each output: what it lacks on average, with the new weight.

        Args:
            layer: The layer, its mask, and what was seen of its inputs.
        """


class ModelReconstructor(Reconstructor, ABC):
    """Works on the whole model, when all masks are in force."""

    @abstractmethod
    def apply(self, model: nn.Module, calibrate: Calibrate, rewrites: Rewrites) -> None:
        """Change the model, by way of `rewrites.put`.

        Args:
            model: The masked model.
            calibrate: A function that runs a model on the data.
            rewrites: Notes what is changed, so that it can be undone.
        """


def reconstructors(given: Reconstruct, pruner: Any) -> list[Reconstructor]:
    """Make what was asked for by name, by class, or by hand.

    Args:
        given: A name, a class or an object, or several.
        pruner: The pruner that they are for.
    """
    if given is None:
        return []
    several = given if isinstance(given, list | tuple) else [given]
    made = [
        each if isinstance(each, Reconstructor) else make_part("reconstructor", each, pruner, {})
        for each in several
    ]
    for each in made:
        if not isinstance(each, Reconstructor):
            raise ConfigError(
                f"reconstruct has {each!r}, which does not derive from prune_toolkit.Reconstructor."
            )
    return made
