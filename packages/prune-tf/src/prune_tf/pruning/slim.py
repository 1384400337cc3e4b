"""Channels by the scaling factor that batch norm gives them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import keras
import numpy as np

from prune_core.callables import check_takes_model
from prune_core.errors import ConfigError
from prune_tf.pruning.penalties import penalised
from prune_tf.pruning.pruner import ConfigList, Pruner

__all__ = ["SlimPruner"]


class SlimPruner(Pruner):
    """Prunes the channels whose batch norm has the smallest scaling factors.

    `score = |γ|`, after training with the penalty `scale · Σ |γ|`.

    Liu et al., Learning Efficient Convolutional Networks through Network Slimming,
    https://arxiv.org/abs/1708.06519

    Args:
        model: The model, masked in place.
        config_list: The rules, for layers of the type BatchNormalization.
        calibrate: Takes the model and trains it with `fit` or another loop that adds
            `model.losses`; None takes the factors as they are.
        scale: Weight of the penalty.
        mode: `"global"` ranks the factors of all layers of an entry together, `"normal"` those
            of each layer.

    Example:
        >>> import keras
        >>> from prune_tf import SlimPruner
        >>> model = keras.Sequential(
        ...     [keras.layers.Input((4,)), keras.layers.BatchNormalization(name="bn")]
        ... )
        >>> pruner = SlimPruner(model, [{"total_sparsity": 0.5, "op_types": ["default"]}])
        >>> model, masks = pruner.compress()
        >>> int(masks["bn"]["gamma"].sum())
        2
    """

    default_types = ("BatchNormalization",)
    supported_types = default_types
    modes: ClassVar[tuple[str, ...]] = ("global", "normal")

    def __init__(
        self,
        model: keras.Model,
        config_list: ConfigList,
        calibrate: Callable[[keras.Model], Any] | None = None,
        scale: float = 0.0001,
        mode: str = "global",
    ) -> None:
        if not 0.0 <= scale < float("inf"):
            raise ConfigError(f"scale is {scale!r}; it must be a number of at least 0.")
        check_takes_model("calibrate", calibrate, "the model and trains it")
        self.calibrate, self.scale = calibrate, scale
        super().__init__(model, config_list, mode)

    def scores(self) -> dict[str, np.ndarray[Any, Any]]:
        """Train with the penalty, and return the factors without their signs."""
        if self.calibrate is not None:
            with self._penalty():
                self.calibrate(self.bound_model)
        return {target.name: np.abs(target.weight) for target in self.targets}

    def _penalty(self) -> AbstractContextManager[None]:
        """Add `scale · Σ |γ|` to the losses of the model."""
        penalty = keras.regularizers.L1(self.scale)
        return penalised(self.bound_model, [(each.layer.gamma, penalty) for each in self.targets])
