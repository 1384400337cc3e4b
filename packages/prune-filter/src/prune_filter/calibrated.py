"""What pruners share that look at a model while it works."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from torch import Tensor, nn

from prune_core import Compressed, ConfigError
from prune_core.masking import Masks
from prune_filter.calibration import Calibrate, Calibration
from prune_toolkit import CalibratedCollector
from prune_toolkit.basic import MoreOptions
from prune_toolkit.oneshot import ConfigList, OneShotPruner

__all__ = ["CalibratedPruner", "Masks"]


class CalibratedPruner(OneShotPruner):
    """Gathers what it needs while the user's own code runs the model.

    Without such code, but with a number of batches, it watches the training that follows
    `compress()`, and its masks are made and come into force before the batch after that.

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        calibration: What runs the model.
        mode: One of `modes`.
        dummy_input: What the model is traced with in the mode `"dependency_aware"`.
        **options: `reconstruct=` and what else `BasicPruner` takes.

    Attributes:
        watched_batches: How many batches of the training to come are watched where nothing runs
            the model and nobody says; None asks for one of the two.
    """

    watched_batches: ClassVar[int | None] = None
    needs_data: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        calibration: Calibration,
        mode: str = "normal",
        dummy_input: Any = None,
        **options: Unpack[MoreOptions],
    ) -> None:
        if calibration.run is None and calibration.batches is None:
            raise ConfigError(
                f"{type(self).__name__} scores by what happens when the model runs, and got "
                "nothing to run it with. Give calibrate=, a function that takes the model and "
                "runs it on some batches."
            )
        self.calibration = calibration
        super().__init__(
            model,
            config_list,
            mode,
            dummy_input,
            calibrate=calibration.plain,
            batches=calibration.batches,
            **options,
        )

    @property
    def calibrate(self) -> Calibrate:
        """What a collector calls."""
        return self.calibration.run or _nothing

    @property
    def batches(self) -> int | None:
        """When a collector interrupts the calibration; training that is watched goes on."""
        return None if self.calibration.run is None else self.calibration.batches

    def compress(self, example_inputs: Any = None) -> Compressed[nn.Module, Masks]:
        """Make masks, put them in force, and return the wrapped model and the masks.

        If it is the training to come that is watched, the masks returned are those of now.

        Args:
            example_inputs: An input of the model, with which masks are closed over what follows
                a masked channel.
        """
        if self.calibration.run is not None:
            return super().compress(example_inputs)
        collector, most = self.data_collector, self.calibration.batches
        assert isinstance(collector, CalibratedCollector)
        assert most is not None
        model = self.bound_model

        def mask_when_enough(module: nn.Module, inputs: Any) -> None:
            if collector.seen >= most:
                watching.remove()
                collector.stop()
                self._mask(collector.gathered(), example_inputs)

        # Registered before the collector counts, so that this sees how many are complete.
        watching = model.register_forward_pre_hook(mask_when_enough)
        collector.watch()
        return Compressed(model, self.masks)

    def _mask(self, data: dict[str, Tensor], example_inputs: Any) -> None:
        assert self.metrics_calculator is not None
        assert self.sparsity_allocator is not None
        scores = self.metrics_calculator.calculate_metrics(data)
        masks = self.sparsity_allocator.generate_sparsity(scores)
        self.put_in_force(masks, example_inputs)


def _nothing(model: nn.Module) -> None:
    """Stand in for a calibration that the user's own training makes."""
