"""Output channels by how much the loss is expected to change without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import keras
import numpy as np

from prune_core.errors import ConfigError, PruneError
from prune_core.progress import track
from prune_tf.axes import to_torch
from prune_tf.inputs import check_inputs
from prune_tf.pruning.batches import Data, batches_of
from prune_tf.pruning.gradients import gradients
from prune_tf.pruning.pruner import ConfigList, Pruner
from prune_tf.pruning.rows import rows_of

__all__ = ["TaylorFOWeightPruner"]


class TaylorFOWeightPruner(Pruner):
    """Prunes the output channels whose removal should change the loss least, to first order.

    `score[i] = Σ_batches Σ (g[i] · w[i])²`, over all weights w of output channel i and their
    gradients g.

    Molchanov et al., Importance Estimation for Neural Network Pruning,
    https://arxiv.org/abs/1906.10771

    Args:
        model: The model, masked in place.
        config_list: The rules.
        data: Samples and targets, as a tuple of arrays or in batches.
        loss: Takes targets and predictions, or the name of a loss of Keras; the loss that the
            model was compiled with unless given.
        batches: How many batches count, or None for all.
        mode: `"normal"` ranks the channels of each layer, `"global"` those of all layers of an
            entry together, `"dependency_aware"` those of layers that can only lose the same
            channels together.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from prune_tf import TaylorFOWeightPruner
        >>> model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(6, name="fc")])
        >>> pruner = TaylorFOWeightPruner(
        ...     model,
        ...     [{"sparsity": 0.5, "op_types": ["Dense"]}],
        ...     data=(np.ones((8, 4), "float32"), np.ones((8, 6), "float32")),
        ...     loss=keras.losses.MeanSquaredError(),
        ... )
        >>> model, masks = pruner.compress()
        >>> int(masks["fc"]["bias"].sum())
        3
    """

    reads_weights: ClassVar[bool] = True
    modes: ClassVar[tuple[str, ...]] = ("normal", "global", "dependency_aware")

    def __init__(
        self,
        model: keras.Model,
        config_list: ConfigList,
        data: Data,
        loss: Callable[[Any, Any], Any] | str | None = None,
        batches: int | None = None,
        mode: str = "normal",
    ) -> None:
        if loss is None and not getattr(model, "compiled", False):
            raise ConfigError(
                "loss is missing and the model is not compiled; pass loss=..., such as "
                "keras.losses.SparseCategoricalCrossentropy(), or compile the model first."
            )
        chosen: Any = loss
        if isinstance(loss, str):
            try:
                chosen = keras.losses.get(loss)
            except ValueError:
                raise ConfigError(
                    f"loss is {loss!r}, and Keras has no loss of that name; pass a function, or "
                    "a name such as 'mean_squared_error'."
                ) from None
        batches_of(data, batches)  # refuses what has no batches
        self.loss: Callable[[Any, Any], Any] | None = chosen
        self.data, self.batches = data, batches
        super().__init__(model, config_list, mode)

    def validate(self) -> None:
        """Check that every weight can have a gradient."""
        for target in self.targets:
            if not getattr(target.layer, target.slot.name).trainable:
                raise PruneError(
                    f"{target.name!r} is frozen (trainable=False), and this algorithm scores by "
                    "gradients. Unfreeze it, or exclude it."
                )

    def scores(self) -> dict[str, np.ndarray[Any, Any]]:
        """Sum the squared terms over the batches."""
        variables = {t.name: getattr(t.layer, t.slot.name) for t in self.targets}
        totals = {t.name: np.zeros(t.shape[t.axis]) for t in self.targets}
        seen, title = False, f"{type(self).__name__}, calibration"
        batches = batches_of(self.data, self.batches)
        for batch in track(batches, title, self.batches, "batch"):
            if len(batch) < 2:
                raise ConfigError("data yields samples without targets; a loss needs both.")
            if not seen:
                check_inputs(self.bound_model, batch[0], "data")
            seen = True
            found = self._gradients([*variables.values()], batch)
            for target, gradient in zip(self.targets, found, strict=True):
                if gradient is None:
                    raise PruneError(
                        f"No gradient reached {target.name!r}; the loss does not depend on it. "
                        "Exclude it."
                    )
                aligned = to_torch(target.layer, target.slot.name, gradient)
                terms = np.square(np.float64(1) * target.weight * aligned)
                totals[target.name] += rows_of(terms, target.axis).sum(axis=1)
        if not seen:
            raise PruneError("There was no batch in data, so there is nothing to score.")
        return totals

    def _gradients(self, variables: list[Any], batch: tuple[Any, ...]) -> list[Any]:
        try:
            return gradients(self.bound_model, variables, batch, self.loss)
        except PruneError:
            raise
        except Exception as error:  # whatever a loss raises, and every backend its own
            wanted, given = (
                keras.tree.map_structure(lambda x: tuple(getattr(x, "shape", ())), each)
                for each in (self.bound_model(batch[0], training=False), batch[1])
            )
            raise ConfigError(
                f"The loss cannot be computed: the model puts out {wanted}, and the targets in "
                f"data have the shape {given} ({str(error).strip().splitlines()[0]})."
            ) from error
