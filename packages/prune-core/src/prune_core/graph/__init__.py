"""A model as coupled units: which slices of which tensors can only be removed together."""

from prune_core.graph.ir import Call, Graph
from prune_core.graph.rules import rule
from prune_core.graph.trace import trace
from prune_core.graph.units import Unit, UnitGroup, Units, units

__all__ = ["Call", "Graph", "Unit", "UnitGroup", "Units", "rule", "trace", "units"]
