"""Pruners that look at what passes through a model."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import keras

from prune_core.errors import ConfigError, PruneError, shown
from prune_core.progress import track
from prune_tf.inputs import check_inputs
from prune_tf.pruning.batches import Data, batches_of
from prune_tf.pruning.pruner import ConfigList, Pruner

__all__ = ["DataPruner"]


class DataPruner(Pruner):
    """Runs the model on some inputs, or has that done.

    Args:
        model: The model, masked in place.
        config_list: The rules.
        data: Samples, as an array or in batches; targets that come with them are ignored.
        batches: How many batches count, or None for all.
        mode: One of `modes`.
        calibrate: Takes the model and runs it on some inputs, in the place of `data`.
    """

    def __init__(
        self,
        model: keras.Model,
        config_list: ConfigList,
        data: Data | None = None,
        batches: int | None = None,
        mode: str = "normal",
        calibrate: Callable[[keras.Model], Any] | None = None,
    ) -> None:
        _check_data(type(self).__name__, data, calibrate)
        if calibrate is None:
            batches_of(data, batches)  # refuses what has no batches
        self.data, self.batches, self.calibrate = data, batches, calibrate
        super().__init__(model, config_list, mode)

    def run(self) -> None:
        """Run the model on the data."""
        if self.calibrate is not None:
            self.calibrate(self.bound_model)
            return
        title = f"{type(self).__name__}, calibration"
        for x, *_ in track(batches_of(self.data, self.batches), title, self.batches, "batch"):
            check_inputs(self.bound_model, x, "data")

    def check_seen(self, layers: Collection[str], seen: Collection[str]) -> None:
        """Refuse to score layers that nothing has passed.

        Args:
            layers: The names of all.
            seen: The names of those that something has passed.
        """
        for name in layers:
            if name not in seen:
                raise PruneError(
                    f"The data gathered nothing for {name!r}: "
                    + ("the layer was not used." if seen else "there was no batch in it.")
                )


def _check_data(pruner: str, data: Any, calibrate: Any) -> None:
    if data is not None and calibrate is not None:
        raise ConfigError("data and calibrate are both given; one runs the model, choose.")
    if data is None and calibrate is None:
        raise ConfigError(
            f"{pruner} needs 'data', some inputs of the model, or 'calibrate', a function that "
            "takes the model and runs it on some."
        )
    if calibrate is not None and not callable(calibrate):
        raise ConfigError(
            f"calibrate is {shown(calibrate)}; it must be a function that takes the model and runs "
            "it on some inputs. The inputs themselves are data=..."
        )
