"""Round weights, and nothing else."""

from prune_quant.quantizer import Quantizer

__all__ = ["NaiveQuantizer"]


class NaiveQuantizer(Quantizer):
    """Rounds each weight to integers of 8 bits, by the largest magnitude of its output channel.

    Nothing is trained and no data is looked at. It is a first answer to "what would this cost?".

    Example:
        ```python
        rules = [{"quant_types": ["weight"], "quant_bits": 8, "op_types": ["default"]}]
        model = NaiveQuantizer(model, rules).compress()
        ```
    """

    quant_types = ("weight",)
