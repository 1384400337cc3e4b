"""Collectors of what goes into layers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from prune_core.errors import PruneError
from prune_core.masking import PrunerModuleWrapper
from prune_toolkit.calibrated import CalibratedCollector
from prune_toolkit.calibration.layers import matrix_of, weight_of
from prune_toolkit.calibration.statistics import Statistics
from prune_toolkit.calibration.watch import InputWatch
from prune_toolkit.running.processes import everyone, total_count

if TYPE_CHECKING:
    from prune_core.pruning.pruner import Pruner
    from prune_toolkit.calibration.calibrate import Calibrate

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
        """Return the statistic of each feature, `(groups, features)`.

        Args:
            statistics: What was seen of a layer's inputs.
        """

    def layers(self) -> dict[str, nn.Module]:
        """Return the layers whose inputs are looked at: the wrapped modules."""
        wrappers = self.compressor.get_modules_wrapper()
        return {name: wrapper.module for name, wrapper in wrappers.items()}

    def data(self, found: Mapping[str, Statistics]) -> dict[str, Tensor]:
        """Turn the statistics of the layers into data of the wrapped modules.

        Args:
            found: The statistics of each layer.
        """
        wrappers = self.compressor.get_modules_wrapper()
        data = {}
        for name, statistics in found.items():
            module = wrappers[name].module
            features = self.of(statistics).unsqueeze(1)
            shape = matrix_of(module, wrappers[name].parameter(wrappers[name].target)).shape
            data[name] = weight_of(module, features.expand(shape))
        return data

    def reset(self) -> None:
        """Forget the statistics of an earlier calibration."""
        super().reset()
        if self._watch is not None:
            self._watch.forget()

    def watch(self) -> None:
        """Gather from every run of the model from now on, until `stop()`."""
        self._watch = None  # which layers are meant may have changed
        super().watch()

    def hook(self, wrapper: PrunerModuleWrapper) -> list[RemovableHandle]:
        """Attach nothing: one watch looks at all layers."""
        return []

    def _attach(self) -> None:
        watch = self._watching()
        super()._attach()
        watch.__enter__()

    def _watching(self) -> InputWatch:
        if self._watch is None:
            self._watch = InputWatch(self.layers(), self.products)
        return self._watch

    def stop(self) -> None:
        """Gather no longer; what has been gathered stays."""
        super().stop()
        if self._watch is not None:
            self._watch.__exit__(None, None, None)

    def begin(self, tokens: Tensor | None) -> None:
        """Hear which tokens of the batch that begins are no padding."""
        if self._watch is not None:
            self._watch.begin(tokens)
            # An evaluation between two steps of a training is not what the training sees.
            evaluates = self.follows and not self.compressor.bound_model.training
            self._watch.paused = evaluates or self.had_enough

    def lacking(self) -> list[str]:
        """Return the layers of which nothing has been gathered yet, in any process."""
        watch = self._watching()
        known = {name for names in everyone(watch.reached) for name in names}
        required = self.required()
        wanted = watch.modules if required is None or not known else required
        return [name for name in wanted if name not in known]

    def gathered(self) -> dict[str, Tensor]:
        """Return the data of all batches so far, those of other processes included."""
        if not total_count(self.seen):
            raise PruneError(f"{self.source} never ran the model, so there is nothing to score.")
        return self.data(self._watching().gathered(self.required()))

    def places(self) -> dict[str, torch.device]:
        """Return the name of everything that is summed up, and the device that it is on."""
        return self._watching().places()

    def state_dict(self) -> dict[str, Any]:
        """Return what has been gathered so far."""
        return {"seen": self.seen, "sums": self._watching().sums()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with what `state_dict()` returned."""
        self.seen = state_dict["seen"]
        self._watching().load_sums(state_dict["sums"])

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
