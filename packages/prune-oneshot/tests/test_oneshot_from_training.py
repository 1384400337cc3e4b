"""What goes into layers can be seen in a training that goes on anyway."""

import copy
import pickle

import pytest
import torch
from torch import nn

from prune_core import ConfigError, PruneError
from prune_oneshot import ActivationNormPruner, FLAPPruner, SparseGPTPruner, WandaPruner
from prune_toolkit.from_training import FROM_TRAINING, follower, with_data

RULES = [{"sparsity": 0.5, "op_types": ["Linear"]}]
FIRST = [{"sparsity": 0.5, "op_names": ["0"]}]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def batch(number):
    return torch.randn(16, 6, generator=torch.Generator().manual_seed(number)) * 2**number


def train(model, numbers):
    model.train()
    for number in numbers:
        model(batch(number)).square().mean().backward()
        model.zero_grad()


def lengths(model, numbers):
    x = torch.cat([batch(number) for number in numbers])
    return {"0": x.norm(dim=0), "2": model[:2](x).detach().norm(dim=0)}


def test_a_schedule_gives_it_what_stands_for_a_training():
    assert with_data(WandaPruner, {"mode": "row"}) == {"mode": "row", "calibrate": FROM_TRAINING}
    own = {"calibrate": net}
    assert with_data(WandaPruner, own) == own


def test_scores_are_of_the_training_batches_since_the_last_ones():
    model = net()
    expected = lengths(copy.deepcopy(model), [1, 2])
    pruner = WandaPruner(model, RULES, calibrate=FROM_TRAINING)
    collector = follower(pruner)
    collector.follow()
    train(model, [5])
    pruner.score()
    assert collector.lacking() == ["0", "2"]
    train(model, [1])
    model.eval()
    model(batch(7))  # an evaluation is not what the training sees
    train(model, [2])
    assert not collector.lacking()
    for name, scores in pruner.score().items():
        weight = pruner.get_modules_wrapper()[name].module.weight.detach()
        torch.testing.assert_close(scores, weight.abs() * expected[name])
    collector.stop()
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_batches_limits_what_counts_and_not_the_training():
    model = net()
    expected = lengths(copy.deepcopy(model), [0, 1])
    pruner = WandaPruner(model, RULES, calibrate=FROM_TRAINING, batches=2)
    follower(pruner).follow()
    train(model, [0, 1, 5])
    weight = model[0].module.weight.detach()
    torch.testing.assert_close(pruner.score()["0"], weight.abs() * expected["0"])


def test_what_has_been_seen_can_be_kept():
    model = net()
    whole = WandaPruner(model, RULES, calibrate=FROM_TRAINING)
    follower(whole).follow()
    train(model, [0])
    state = pickle.loads(pickle.dumps(follower(whole).state_dict()))
    train(model, [1])
    again = WandaPruner(net(), RULES, calibrate=FROM_TRAINING)
    follower(again).load_state_dict(state)
    follower(again).follow()
    train(again.bound_model, [1])
    expected = whole.score()
    assert all(torch.equal(scores, expected[name]) for name, scores in again.score().items())


def test_a_copy_shows_nothing_and_the_model_can_be_pickled():
    model = net()
    pruner = WandaPruner(model, RULES, calibrate=FROM_TRAINING)
    follower(pruner).follow()
    train(copy.deepcopy(model), [0])
    pickle.loads(pickle.dumps(model))
    with pytest.raises(PruneError, match="The training never ran the model"):
        pruner.score()


def test_units_are_scored_by_what_their_readers_see():
    model = net()
    pruner = ActivationNormPruner(model, FIRST, dummy_input=batch(0), calibrate=FROM_TRAINING)
    collector = follower(pruner)
    assert collector.lacking() == ["2"]
    collector.follow()
    train(model, [0, 1])
    assert not collector.lacking()
    expected = lengths(net(), [0, 1])["2"].square() / 32 * net()[2].weight.square().sum(0)
    torch.testing.assert_close(pruner.score()["0"].float(), expected.detach())


@pytest.mark.parametrize(
    ("algorithm", "why"),
    [
        (SparseGPTPruner, "sequential needs calibrate="),
        (FLAPPruner, "looks at what layers compute"),
    ],
)
def test_what_runs_the_model_again_needs_something_that_does(algorithm, why):
    options = {"dummy_input": batch(0)}
    with pytest.raises(ConfigError, match=why):
        algorithm(net(), FIRST, calibrate=FROM_TRAINING, **options)
