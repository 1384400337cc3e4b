"""From a torch model to its units."""

from typing import Any

from torch import nn

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
    """
    return read_units(labelled(trace(model, example_inputs, known=has_rule)))
