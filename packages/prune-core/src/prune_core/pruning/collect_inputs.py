"""Collectors of what goes into layers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from prune_core.calibration.layers import matrix_of, weight_of
from prune_core.calibration.processes import total_count
from prune_core.calibration.statistics import Statistics
from prune_core.calibration.watch import InputWatch
from prune_core.errors import PruneError
from prune_core.masking import PrunerModuleWrapper
from prune_core.pruning.collect import CalibratedCollector

if TYPE_CHECKING:
    from prune_core.calibration.replay import Calibrate
    from prune_core.pruning.pruner import Pruner

__all__ = ["InputCollector", "InputMeanCollector", "InputNormCollector", "InputVarianceCollector"]


class InputCollector(CalibratedCollector):
    """Gathers a statistic of each input feature; subclasses say which.

    It is spread over the weights that a feature is multiplied with, so that data have the shape
    of weights. Padding does not count, where the pruner knows what is padding.

    Args:
        compressor: The pruner.
        calibrate: Runs the model on some batches.
        batches: Stop after this many, or None.

    Attributes:
        products: Whether the statistic needs the products of features.
    """

    products: ClassVar[bool] = False

    def __init__(
        self, compressor: Pruner, calibrate: Calibrate, batches: int | None = None
    ) -> None:
        super().__init__(compressor, calibrate, batches)
        self._watch: InputWatch | None = None

    @abstractmethod
    def of(self, statistics: Statistics) -> Tensor:
        """Return the statistic of each feature, `(groups, features)`."""

    def layers(self) -> dict[str, nn.Module]:
        """Return the layers whose inputs are looked at: the wrapped modules."""
        wrappers = self.compressor.get_modules_wrapper()
        return {name: wrapper.module for name, wrapper in wrappers.items()}

    def data(self, found: Mapping[str, Statistics]) -> dict[str, Tensor]:
        """Turn the statistics of the layers into data of the wrapped modules."""
        wrappers = self.compressor.get_modules_wrapper()
        data = {}
        for name, statistics in found.items():
            module = wrappers[name].module
            features = self.of(statistics).unsqueeze(1)
            shape = matrix_of(module, wrappers[name].parameter(wrappers[name].target)).shape
            data[name] = weight_of(module, features.expand(shape))
        return data

    def watch(self) -> None:
        """Gather from every run of the model from now on, until `stop()`."""
        watch = InputWatch(self.layers(), self.products)
        super().watch()
        self._watch = watch.__enter__()

    def stop(self) -> None:
        """Gather no longer; what has been gathered stays."""
        super().stop()
        if self._watch is not None:
            self._watch.__exit__(None, None, None)

    def hook(self, wrapper: PrunerModuleWrapper) -> list[RemovableHandle]:
        """Attach nothing: one watch looks at all layers."""
        return []

    def begin(self, tokens: Tensor | None) -> None:
        """Hear which tokens of the batch that begins are no padding."""
        if self._watch is not None:
            self._watch.begin(tokens)

    def gathered(self) -> dict[str, Tensor]:
        """Return the data of all batches so far, those of other processes included."""
        if not total_count(self.seen):
            raise PruneError("calibrate(model) never ran the model, so there is nothing to score.")
        assert self._watch is not None
        return self.data(self._watch.gathered(self.required()))

    def required(self) -> Collection[str] | None:
        """Return the layers that data must reach; None means all of them."""
        return None


class InputNormCollector(InputCollector):
    """Gathers the length of each input feature over everything that passes, `‖X_j‖₂`."""

    def of(self, statistics: Statistics) -> Tensor:
        """Return the lengths."""
        return statistics.norm


class InputMeanCollector(InputCollector):
    """Gathers the mean of each input feature."""

    def of(self, statistics: Statistics) -> Tensor:
        """Return the means."""
        return statistics.mean


class InputVarianceCollector(InputCollector):
    """Gathers the variance of each input feature."""

    def of(self, statistics: Statistics) -> Tensor:
        """Return the variances."""
        return statistics.variance
