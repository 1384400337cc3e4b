"""Every pruner of this package keeps what every pruner promises."""

import pytest
import torch
from torch.nn import functional as F

from prune_core.registry import entries
from prune_core.testing import MLP, check_pruner, make_batch

CHANNELS, WEIGHTS = {"granularity": "channels"}, {"granularity": "weights"}
# Exact counts per layer are promised where layers are ranked one by one.
BY_LAYER = WEIGHTS | {"mode": "normal"}


def loss(model):
    inputs, labels = make_batch(model)
    return F.cross_entropy(model(inputs), labels)


def backward(model):
    loss(model).backward()


ARGUMENTS = {
    "apoz": CHANNELS | {"calibrate": backward},
    "fpgm": CHANNELS,
    "grasp": BY_LAYER | {"calibrate": loss},
    "group_taylor": CHANNELS | {"calibrate": backward},
    "hrank": CHANNELS | {"calibrate": backward},
    "l1": CHANNELS,
    "l2": CHANNELS,
    "level": WEIGHTS,
    "mean_activation": CHANNELS | {"calibrate": backward},
    "movement": WEIGHTS | {"calibrate": backward},
    "nm": WEIGHTS | {"sparsities": [0.5], "model": MLP, "config": {"op_names": ["fc1"]}},
    "random": CHANNELS,
    "random_weight": WEIGHTS,
    "slim": BY_LAYER,
    "snip": BY_LAYER | {"calibrate": backward},
    "synflow": BY_LAYER | {"dummy_input": torch.ones(1, 3, 8, 8), "rounds": 3},
    "taylorfo": CHANNELS | {"calibrate": backward},
}
PRUNERS = [e for e in entries("pruner") if e.plugin.distribution == "prune-filter"]


@pytest.mark.parametrize("entry", PRUNERS, ids=lambda entry: entry.name)
def test_it_keeps_what_every_pruner_promises(entry):
    check_pruner(entry.load(), **ARGUMENTS[entry.name])
