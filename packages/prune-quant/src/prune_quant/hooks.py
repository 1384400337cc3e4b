"""What this plugin registers.

This module is imported whenever names are listed: it must not import torch. What a Reference
names is imported when somebody asks for it.
"""

from prune_core import Reference, hookimpl


@hookimpl
def prune_register_quantizers() -> dict[str, Reference]:
    """Name the quantizers."""
    return {
        "naive": Reference(
            "prune_quant.naive:NaiveQuantizer",
            "Weights rounded by the largest magnitude of each output channel.",
            paper="https://arxiv.org/abs/1806.08342",
        ),
        "observer": Reference(
            "prune_quant.observer:ObserverQuantizer",
            "Weights, inputs and outputs rounded by ranges seen on data, without training.",
            paper="https://arxiv.org/abs/1806.08342",
        ),
        "qat": Reference(
            "prune_quant.qat:QAT_Quantizer",
            "Rounded while the model is trained, which learns to bear it.",
            paper="https://arxiv.org/abs/1712.05877",
        ),
        "lsq": Reference(
            "prune_quant.lsq:LsqQuantizer",
            "Rounded while the model is trained, with steps that are trained too.",
            paper="https://arxiv.org/abs/1902.08153",
        ),
        "dorefa": Reference(
            "prune_quant.dorefa:DoReFaQuantizer",
            "Trained with weights squeezed by tanh and rounded to a few bits.",
            paper="https://arxiv.org/abs/1606.06160",
        ),
        "bnn": Reference(
            "prune_quant.bnn:BNNQuantizer",
            "Trained with the signs of weights and outputs: one bit each.",
            paper="https://arxiv.org/abs/1602.02830",
        ),
    }
