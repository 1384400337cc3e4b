"""Channels by the scaling factor that batch norm gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import keras
import numpy as np

from prune_core.callables import check_takes_model
from prune_core.errors import ConfigError
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

    @contextmanager
    def _penalty(self) -> Iterator[None]:
        """Add `scale · Σ |γ|` to the losses of the model, beside what regularizes γ already."""
        factors = [target.layer.gamma for target in self.targets]
        before = [factor.regularizer for factor in factors]
        for factor, regularizer in zip(factors, before, strict=True):
            factor.regularizer = _Penalty(self.scale, regularizer)
        self._compile_anew()
        try:
            yield
        finally:
            for factor, regularizer in zip(factors, before, strict=True):
                factor.regularizer = regularizer
            self._compile_anew()

    def _compile_anew(self) -> None:
        # A step that was compiled before has the losses of then.
        if getattr(self.bound_model, "train_function", None) is not None:
            self.bound_model.train_function = None


class _Penalty(keras.regularizers.Regularizer):  # type: ignore[misc]
    def __init__(self, scale: float, beside: Any) -> None:
        self.l1, self.beside = keras.regularizers.L1(scale), beside

    def __call__(self, x: Any) -> Any:
        penalty = self.l1(x)
        return penalty if self.beside is None else penalty + self.beside(x)
