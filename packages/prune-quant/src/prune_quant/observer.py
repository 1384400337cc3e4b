"""Quantisation after training, by a look at data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from prune_core.compat import understands
from prune_core.errors import PruneError
from prune_quant.batches import evaluating
from prune_quant.quantizer import ANY_QUANTIZER, ConfigList, Quantizer
from prune_quant.rounding.fake import FakeQuantizer, ObservedRange, OwnRange

__all__ = ["ObserverQuantizer"]


class ObserverQuantizer(Quantizer):
    """Looks at a few batches of inputs, and rounds by what it has seen; nothing is trained.

    Run the model on some batches between the constructor and `compress()`, or let `calibrate` do
    it. Each input and output gets the range with the least squared error, so that a few large
    values do not cost all others their precision.

    Args:
        model: The model, wrapped in place.
        config_list: What to quantise, or the path of a YAML file that says it.
        optimizer: Nothing is trained, so it is not used.
        calibrate: A function that runs the model on some batches; `compress()` calls it.

    Example:
        ```python
        rules = [{"quant_types": ["weight", "input"], "quant_bits": 8, "op_types": ["default"]}]
        quantizer = ObserverQuantizer(model.eval(), rules)
        for x in batches:
            model(x)
        quantizer.compress()
        ```
    """

    bits = (2, 8)

    @understands(ANY_QUANTIZER)
    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        optimizer: Any = None,
        *,
        calibrate: Callable[[nn.Module], object] | None = None,
    ) -> None:
        self.calibrate = calibrate
        super().__init__(model, config_list, optimizer)

    def make(self, kind: str, bits: int, axis: int | None) -> FakeQuantizer:
        """Return what rounds one tensor: weights by their own range, others by what was seen."""
        return OwnRange(bits, axis) if kind == "weight" else ObservedRange(bits)

    def settle(self) -> None:
        """Take the ranges from what was seen."""
        if self.calibrate is not None and not self.compressed:
            with evaluating(self.bound_model):
                self.calibrate(self.bound_model)
        super().settle()
        observed = [
            (name, kind, quantizer)
            for name, wrapper in self._wrappers.items()
            for kind, quantizer in wrapper.quantizers.items()
            if isinstance(quantizer, ObservedRange)
        ]
        for name, kind, quantizer in observed:
            if quantizer.histogram is None and not quantizer.seen:
                raise PruneError(
                    f"The {kind} of {name!r} has not been seen: run the model on a few batches "
                    "before compress(), or give calibrate=, a function that does. A layer that "
                    "such a run does not reach has to be excluded."
                )
        for _, _, quantizer in observed:
            quantizer.settle()
