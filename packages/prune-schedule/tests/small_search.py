"""A network of three layers, and a search whose best answer is known."""

import torch
from torch import nn

from prune_schedule import SimulatedAnnealingPruner

RULES = [{"sparsity": 0.5, "op_types": ["Linear"]}]


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 10)
    )


def closeness(wanted):
    """Return an evaluation that is best where layers have the sparsities that it wants."""

    def evaluate(model):
        found = [1 - m.masks["weight"].float().mean().item() for m in model if hasattr(m, "masks")]
        return -sum((a - b) ** 2 for a, b in zip(found, wanted, strict=True))

    return evaluate


def anneal(model=None, rules=RULES, **arguments):
    arguments = {"pruning_algorithm": "smallest", **arguments}
    return SimulatedAnnealingPruner(model or net(), rules, **arguments)
