"""Half of the units of many kinds of models, judged by an oracle that knows no engine."""

import pytest
import sketches
import torch
import torch_layers
from judge import EXACT, judge
from oracle import compare
from torch import nn


@pytest.mark.parametrize("name", sketches.names())
def test_what_makes_pruning_difficult(name):
    row = judge(lambda: sketches.build(name))
    assert row["status"] == "ok", row


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")  # torch's own advice
@pytest.mark.parametrize("name", torch_layers.names())
def test_sequence_layers_of_torch(name):
    row = judge(lambda: torch_layers.build(name))
    assert row["status"] == "ok", row


def test_the_oracle_notices_a_single_wrong_number():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2))
    small = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    keep = [0, 1, 3, 5]
    with torch.no_grad():
        small[0].weight.copy_(model[0].weight[keep])
        small[0].bias.copy_(model[0].bias[keep])
        small[2].weight.copy_(model[2].weight[:, keep])
        small[2].bias.copy_(model[2].bias)
    gone = [
        {"0.weight": {0: (i,)}, "0.bias": {0: (i,)}}
        | {"1.weight": {0: (i,)}, "1.bias": {0: (i,)}, "2.weight": {1: (i,)}}
        for i in (2, 4)
    ]
    inputs = torch.rand(3, 4)
    assert compare(model, small, inputs, gone).difference < EXACT
    with torch.no_grad():
        small[0].weight[1, 1] += 1e-3
    assert compare(model, small, inputs, gone).difference > EXACT
