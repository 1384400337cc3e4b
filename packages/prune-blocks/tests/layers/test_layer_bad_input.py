"""What cannot be done is said, and the model is left as it was."""

import pytest
import torch
from layered import Stack
from torch import nn

import prune_core
from prune_core import ConfigError, OptionError, PruneError

TOKENS = torch.randn(2, 5, 8)
GOOD = {"count": 1, "example_inputs": TOKENS, "data": [TOKENS]}


def refused(match, error=ConfigError, algorithm="block_influence", model=None, **options):
    model = Stack(3) if model is None else model
    before = [*model.named_modules()]
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(error, match=match):
        prune_core.prune(model, algorithm, **{**GOOD, **options})
    assert [*model.named_modules()] == before
    assert all(torch.equal(t, tensors[name]) for name, t in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("algorithm", ["block_influence", "angular_distance"])
def test_without_data(algorithm):
    refused(r"was given no data: say data=", algorithm=algorithm, data=None)


def test_leave_one_out_without_a_loss():
    refused("nothing to measure one on", algorithm="leave_one_out", data=None)
    refused("no loss on the calibration data", PruneError, algorithm="leave_one_out")


def test_an_evaluate_that_returns_no_number():
    refused(
        "must return a loss, one number",
        algorithm="leave_one_out",
        data=None,
        evaluate=lambda model: "low",
    )
    refused("one says the loss", algorithm="leave_one_out", evaluate=lambda model: 0.0)


def test_without_example_inputs():
    refused("needs example_inputs", example_inputs=None)


@pytest.mark.parametrize(
    ("amount", "match"),
    [
        ({"count": None}, "Say how much"),
        ({"count": None, "sparsity": 0.1}, "less than one"),
        ({"count": None, "sparsity": 2.0}, "greater than 0 and less than 1"),
        ({"count": 0}, "whole number of at least 1"),
        ({"count": 3}, "so that one is left"),
        ({"count": None, "target": {"flop": 0.5}}, "Did you mean 'flops'"),
        ({"count": None, "target": {"latency": 0.5}}, "one of parameters, flops"),
        ({"count": None, "target": {"parameters": 0.01}}, r"0\.\d+ is left"),
        ({"sparsity": 0.5}, "once"),
    ],
)
def test_amounts(amount, match):
    refused(match, **amount)


def test_names():
    refused(r"Did you mean 'layers\.1'", targets="layer.1")
    refused("no such block or module", exclude="laiers")
    refused("none is of", exclude=["layers.0", "layers.1", "layers.2"])


def test_branches_where_blocks_are_ranked():
    refused("ranks whole blocks", targets="mlp")
    refused("ranks whole blocks", algorithm="angular_distance", targets="mlp")


def test_a_run_that_is_longer_than_any_row():
    refused("the longest row", algorithm="angular_distance", count=9)


def test_a_model_without_blocks():
    refused("Nothing can be taken out", model=nn.Sequential(nn.Linear(8, 8), nn.ReLU()))


def test_a_calibration_that_runs_nothing():
    refused("never ran", PruneError, data=None, calibrate=lambda model: None)


def test_numbers_that_are_none():
    refused("nan", PruneError, data=[TOKENS * torch.nan])


def test_an_option_that_is_none():
    refused("Did you mean 'count'", OptionError, cuont=1)
