"""Make a model small to see what is left of it, and put it back."""

from collections.abc import Callable
from typing import Any

from torch import nn

from prune_speedup.torch.masks import Masks
from prune_speedup.torch.report import SpeedupReport
from prune_speedup.torch.speedup import make_small
from prune_speedup.torch.tensors import Snapshot

__all__ = ["rehearse"]


def rehearse(
    model: nn.Module,
    example_inputs: Any,
    masks: Masks,
    constants: str = "exact",
    look: Callable[[nn.Module], None] = lambda small: None,
) -> SpeedupReport:
    """Return the report of a `shrink` whose model is then put back.

    The small model is compared with the masked one, for that may show that something has to stay.

    Args:
        model: The model.
        example_inputs: What it is run with.
        masks: What is to go.
        constants: As for `shrink`.
        look: Called with the small model before it is put back.
    """
    untouched = Snapshot(model)
    try:
        report = make_small(model, example_inputs, masks, constants=constants)
        look(model)
        return report
    finally:
        untouched.restore()
