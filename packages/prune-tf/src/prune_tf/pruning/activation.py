"""Output channels by what they send on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import keras
import numpy as np

from prune_core.errors import ConfigError
from prune_tf.arrays import array_of
from prune_tf.pruning.batches import Data
from prune_tf.pruning.data import DataPruner
from prune_tf.pruning.observe import observed
from prune_tf.pruning.pruner import ConfigList
from prune_tf.pruning.rows import rows_of

__all__ = ["ActivationAPoZRankPruner", "ActivationMeanRankPruner"]

Array = np.ndarray[Any, Any]
ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0.0),
    "relu6": lambda x: np.clip(x, 0.0, 6.0),
}


class _ActivationPruner(DataPruner):
    """Prunes the output channels whose activations have the smallest mean of some statistic."""

    modes: ClassVar[tuple[str, ...]] = ("normal", "dependency_aware")

    def __init__(
        self,
        model: keras.Model,
        config_list: ConfigList,
        data: Data | None = None,
        batches: int | None = None,
        activation: str = "relu",
        mode: str = "normal",
        calibrate: Callable[[keras.Model], Any] | None = None,
    ) -> None:
        if activation not in ACTIVATIONS:
            raise ConfigError(
                f"activation is {activation!r}; it must be one of "
                f"{', '.join(map(repr, ACTIVATIONS))}."
            )
        self.activation = ACTIVATIONS[activation]
        super().__init__(model, config_list, data, batches, mode, calibrate)

    @abstractmethod
    def statistic(self, outputs: Array) -> Array:
        """Return what is averaged, for each value that a layer puts out."""

    def scores(self) -> dict[str, Array]:
        """Run the model on the data and average over batches and positions."""
        targets = {target.name: target for target in self.targets}
        sums: dict[str, Array] = {}
        counts: dict[str, int] = {}

        def look(name: str, layer: Any, output: Any) -> None:
            value = self.statistic(array_of(keras.ops.cast(output, "float32")))
            # A convolution may put channels first; in an output they lie as in a bias.
            first = getattr(layer, "data_format", None) == "channels_first"
            flat = rows_of(value, 1 if first else value.ndim + targets[name].bias_axis)
            sums[name] = sums.get(name, 0.0) + flat.sum(axis=1, dtype=np.float64)
            counts[name] = counts.get(name, 0) + flat.shape[1]

        layers = {target.name: target.layer for target in self.targets}
        with observed(layers, look):
            self.run()
        self.check_seen(layers, sums)
        return {name: sums[name] / counts[name] for name in layers}


class ActivationAPoZRankPruner(_ActivationPruner):
    """Prunes the output channels whose activations are zero most often.

    `score[i] = 1 − APoZ[i] = 1 − mean(act(out[i]) == 0)`, over all batches and positions.

    Hu et al., Network Trimming: A Data-Driven Neuron Pruning Approach towards Efficient Deep
    Architectures, https://arxiv.org/abs/1607.03250

    Args:
        model: The model, masked in place.
        config_list: The rules.
        data: Samples, as an array or in batches; targets that come with them are ignored.
        batches: How many batches count, or None for all.
        activation: `"relu"` or `"relu6"`, applied to the outputs of a layer.
        mode: `"normal"` ranks the channels of each layer, `"dependency_aware"` those of layers
            that can only lose the same channels together.
        calibrate: Takes the model and runs it on some inputs, in the place of `data`.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from prune_tf import ActivationAPoZRankPruner
        >>> model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(6, name="fc")])
        >>> pruner = ActivationAPoZRankPruner(
        ...     model, [{"sparsity": 0.5, "op_types": ["Dense"]}], data=np.ones((8, 4), "float32")
        ... )
        >>> model, masks = pruner.compress()
        >>> int(masks["fc"]["bias"].sum())
        3
    """

    def statistic(self, outputs: Array) -> Array:
        """Return whether a value is not zero.

        Args:
            outputs: What a layer returned.
        """
        return np.asarray(self.activation(outputs) != 0)


class ActivationMeanRankPruner(_ActivationPruner):
    """Prunes the output channels whose activations have the smallest mean.

    `score[i] = mean(act(out[i]))`; otherwise as `ActivationAPoZRankPruner`.

    Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference,
    section 2.2, https://arxiv.org/abs/1611.06440
    """

    def statistic(self, outputs: Array) -> Array:
        """Return the activations.

        Args:
            outputs: What a layer returned.
        """
        return self.activation(outputs)
