"""Collectors of what goes into layers."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor
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

    def watch(self) -> None:
        """Gather from every run of the model from now on, until `stop()`."""
        wrappers = self.compressor.get_modules_wrapper()
        modules = {name: wrapper.module for name, wrapper in wrappers.items()}
        watch = InputWatch(modules, self.products)
        super().watch()
        self._watch = watch.__enter__()

    def stop(self) -> None:
        """Gather no longer; what has been gathered stays."""
        super().stop()
        if self._watch is not None:
            self._watch.__exit__(None, None, None)

    def hook(self, wrapper: PrunerModuleWrapper) -> list[RemovableHandle]:
        """Attach nothing: one watch looks at all modules."""
        return []

    def begin(self, tokens: Tensor | None) -> None:
        """Hear which tokens of the batch that begins are no padding."""
        assert self._watch is not None
        self._watch.begin(tokens)

    def gathered(self) -> dict[str, Tensor]:
        """Return the statistics of all batches so far, those of other processes included."""
        if not total_count(self.seen):
            raise PruneError("calibrate(model) never ran the model, so there is nothing to score.")
        assert self._watch is not None
        wrappers = self.compressor.get_modules_wrapper()
        data = {}
        for name, found in self._watch.gathered().items():
            module = wrappers[name].module
            features = self.of(found).unsqueeze(1)
            shape = matrix_of(module, wrappers[name].parameter(wrappers[name].target)).shape
            data[name] = weight_of(module, features.expand(shape))
        return data


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
