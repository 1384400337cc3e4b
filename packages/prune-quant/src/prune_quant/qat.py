"""Quantisation-aware training."""

from prune_quant.quantizer import Quantizer

__all__ = ["QAT_Quantizer"]


class QAT_Quantizer(Quantizer):  # noqa: N801 - the name that it has in NNI
    """Rounds weights, inputs and outputs while the model is trained, so that it learns to bear it.

    Forward computes with rounded numbers; gradients pass as if nothing had been rounded. Weights
    have a step for each output channel, from their largest magnitude. The range of inputs and
    outputs follows that of the batches, slowly.

    Example:
        ```python
        rules = [{"quant_types": ["weight", "input"], "quant_bits": 8, "op_types": ["default"]}]
        quantizer = QAT_Quantizer(model, rules, optimizer)
        quantizer.compress()
        train(model, optimizer)
        quantizer.export_model("model.pth", "calibration.pth")
        ```
    """

    config_keys = ("quant_start_step",)
