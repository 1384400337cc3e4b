"""Learned step size quantisation."""

from __future__ import annotations

from typing import Any

from torch import nn

from prune_core.compat import understands
from prune_quant.quantizer import ANY_QUANTIZER, ConfigList, Quantizer
from prune_quant.rounding.fake import FakeQuantizer, LearnedStep

__all__ = ["LsqQuantizer"]


class LsqQuantizer(Quantizer):
    """Trains the step of each weight, input and output together with the model.

    The steps are parameters. With `optimizer=`, they are added to it, in a group without weight
    decay; an optimizer that is made afterwards, from `model.parameters()`, has them anyway.

    Example:
        ```python
        rules = [{"quant_types": ["weight", "input"], "quant_bits": 4, "op_types": ["default"]}]
        quantizer = LsqQuantizer(model, rules, optimizer)
        quantizer.compress()
        train(model, optimizer)
        ```
    """

    config_keys = ("quant_start_step",)

    @understands(ANY_QUANTIZER)
    def __init__(self, model: nn.Module, config_list: ConfigList, optimizer: Any = None) -> None:
        super().__init__(model, config_list, optimizer)
        if optimizer is not None:
            steps = [q.scale for w in self._wrappers.values() for q in w.quantizers.values()]
            optimizer.add_param_group({"params": steps, "weight_decay": 0.0})

    def make(self, kind: str, bits: int, axis: int | None) -> FakeQuantizer:
        """Return what rounds one tensor, by a step that is trained."""
        return LearnedStep(bits, weight=kind == "weight")
