"""DoReFa-Net."""

from prune_quant.quantizer import Quantizer
from prune_quant.rounding.fake import FakeQuantizer
from prune_quant.rounding.few_bits import ClippedActivation, TanhWeight

__all__ = ["DoReFaQuantizer"]


class DoReFaQuantizer(Quantizer):
    """Trains with weights squeezed by tanh and rounded between -1 and 1.

    Inputs and outputs, where they are asked for, are held between 0 and 1, so the model should be
    one that keeps them there. Gradients are not rounded, as in NNI. Pruned weights stay zero,
    though the grid has no zero.

    Example:
        ```python
        rules = [{"quant_types": ["weight"], "quant_bits": 4, "op_types": ["default"]}]
        quantizer = DoReFaQuantizer(model, rules, optimizer)
        quantizer.compress()
        train(model, optimizer)
        ```
    """

    bits = (1, 16)
    integers = False

    def make(self, kind: str, bits: int, axis: int | None) -> FakeQuantizer:
        """Return what rounds one tensor."""
        return TanhWeight(bits) if kind == "weight" else ClippedActivation(bits)
