"""Learned step size quantisation."""

from __future__ import annotations

from torch import nn

from prune_quant.quantizer import ConfigList, Quantizer
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

    def reset(self, model: nn.Module, config_list: ConfigList) -> None:
        """Start anew with another model or config, and steps that the optimizer trains.

        Args:
            model: The model to quantise.
            config_list: Its rules.
        """
        super().reset(model, config_list)
        if self.optimizer is not None:
            steps = [q.scale for w in self._wrappers.values() for q in w.quantizers.values()]
            self.optimizer.add_param_group({"params": steps, "weight_decay": 0.0})

    def make(self, kind: str, bits: int, axis: int | None) -> FakeQuantizer:
        """Return what rounds one tensor, by a step that is trained."""
        return LearnedStep(bits, weight=kind == "weight")
