"""A model as coupled units: which slices of which tensors can only be removed together."""

from prune_speedup.engine.graph import Call, Graph
from prune_speedup.engine.units import Unit, UnitGroup, Units, units
from prune_speedup.torch.record.recorder import trace
from prune_speedup.torch.rules import rule

__all__ = ["Call", "Graph", "Unit", "UnitGroup", "Units", "rule", "trace", "units"]
