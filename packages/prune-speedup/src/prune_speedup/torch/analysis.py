"""From a torch model to its units."""

from typing import Any

from torch import nn

from prune_core.masking import bare
from prune_speedup.engine.graph import Graph
from prune_speedup.engine.propagate import Labelling, propagate
from prune_speedup.engine.units import Units, read_units
from prune_speedup.gc_pause import collecting_later
from prune_speedup.torch.record.recorder import trace
from prune_speedup.torch.rules import TORCH, has_rule

__all__ = ["labelled", "units"]


def labelled(graph: Graph) -> Labelling:
    """Label a recorded forward by torch's rules."""
    return propagate(graph, TORCH)


@collecting_later()
def units(model: nn.Module, example_inputs: Any) -> Units:
    """Find what can be removed from a model, and what must go with it.

    Args:
        model: Any module; it is run once, in eval mode, and left as it was.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments.

    Example:
        A unit is a channel of the first convolution: its filter, its bias, and what the second
        convolution reads of it. The outputs of the model stay.

        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
        >>> print(units(model, torch.zeros(1, 1, 8, 8)))
        0.weight[0]: 4 units
        ├── 0.weight axis 0 of 4, 1 index each
        ├── 0.bias axis 0 of 4, 1 index each
        └── 2.weight axis 1 of 4, 1 index each
    """
    with bare(model) as plain:
        return read_units(labelled(trace(plain, example_inputs, known=has_rule)))
