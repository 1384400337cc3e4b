"""Binarised neural networks."""

from prune_quant.quantizer import Quantizer
from prune_quant.rounding.fake import FakeQuantizer
from prune_quant.rounding.few_bits import SignActivation, SignWeight

__all__ = ["BNNQuantizer"]


class BNNQuantizer(Quantizer):
    """Trains with the signs of weights and of outputs: one bit each.

    Gradients pass where a value is between -1 and 1. Pruned weights stay zero, so a pruned network
    has three values. Use it on networks that are built for it, with a batch norm behind each layer.

    Example:
        ```python
        rules = [
            {"quant_types": ["weight"], "quant_bits": 1, "op_types": ["Conv2d", "Linear"]},
            {"quant_types": ["output"], "quant_bits": 1, "op_types": ["Hardtanh"]},
        ]
        quantizer = BNNQuantizer(model, rules, optimizer)
        quantizer.compress()
        train(model, optimizer)
        ```
    """

    bits = (1, 1)
    default_bits = 1
    integers = False

    def make(self, kind: str, bits: int, axis: int | None) -> FakeQuantizer:
        """Return what rounds one tensor."""
        return SignWeight(bits) if kind == "weight" else SignActivation(bits)
