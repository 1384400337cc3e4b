"""The predecessor's evaluator gives what the plain forms give."""

import pytest
import torch
from torch import nn

from prune_core import ConfigError
from prune_filter import (
    ActivationAPoZRankPruner,
    MovementPruner,
    SlimPruner,
    TaylorFOWeightPruner,
    TorchEvaluator,
)

INPUTS = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
CONV = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
NORM = [{"total_sparsity": 0.5, "op_types": ["BatchNorm2d"]}]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))


def loss(outputs):
    return outputs.square().mean()


def evaluator_of(model, calls=None):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def train(model, optimizer, criterion, schedulers, max_steps, max_epochs):
        if calls is not None:
            calls.append((schedulers, max_steps, max_epochs))
        for _ in range(max_steps or max_epochs):
            optimizer.zero_grad()
            criterion(model(INPUTS)).backward()
            optimizer.step()

    return TorchEvaluator(train, optimizer, loss, "the schedule", evaluating_func=lambda m: 0.5)


def plain(model):
    """The same training, as a function of the model alone."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def calibrate(model):
        for _ in range(3):
            optimizer.zero_grad()
            loss(model(INPUTS)).backward()
            optimizer.step()

    return calibrate


@pytest.mark.parametrize(
    ("pruner", "rules"),
    [
        (ActivationAPoZRankPruner, CONV),
        (TaylorFOWeightPruner, CONV),
        (MovementPruner, CONV),
        (SlimPruner, NORM),
    ],
)
def test_it_trains_as_calibrate_does(pruner, rules):
    model, other = network(), network()
    length = "training_epochs" if pruner is SlimPruner else "training_steps"
    _, masks = pruner(model, rules, evaluator_of(model), **{length: 3}).compress()
    _, same = pruner(other, rules, calibrate=plain(other)).compress()
    assert masks.keys() == same.keys()
    for name in masks:
        assert torch.equal(masks[name]["weight"], same[name]["weight"])
    for mine, its in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, its)


def test_what_the_function_is_given():
    model, calls = network(), []
    TaylorFOWeightPruner(model, CONV, evaluator_of(model, calls), 3).compress()
    TaylorFOWeightPruner(
        model := network(), CONV, evaluator=evaluator_of(model, calls), training_steps=2
    ).compress()
    assert calls == [("the schedule", 3, None), ("the schedule", 2, None)]


@pytest.mark.parametrize(
    "score", [0.5, (0.5, "loss"), {"loss": 2.0, "default": 0.5}, {"top1": 0.5}]
)
def test_it_can_be_called_for_a_score(score):
    assert TorchEvaluator(print, None, loss, evaluating_func=lambda model: score)(network()) == 0.5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"evaluator": print, "training_steps": 1}, "it must be a prune_filter.TorchEvaluator"),
        ({"evaluator": nn.Linear(1, 1), "training_steps": 1}, r"has train\(model, max_steps"),
        ({"evaluator": TorchEvaluator(print, None, loss)}, "neither training_steps= nor"),
        (
            {"evaluator": TorchEvaluator(print, None, loss), "calibrate": print},
            "evaluator and calibrate, which mean the same",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        TaylorFOWeightPruner(network(), CONV, **options)


class Duck:
    """What any object needs to stand for an evaluator."""

    def __init__(self):
        self.asked = []

    def train(self, model, max_steps=None, max_epochs=None):
        self.asked.append((max_steps, max_epochs))
        for _ in range(max_steps):
            loss(model(torch.randn(2, 3, 8, 8))).backward()

    def __call__(self, model):
        return 0.5


def test_any_object_that_trains_and_scores_is_an_evaluator():
    duck = Duck()
    _, masks = TaylorFOWeightPruner(network(), CONV, duck, 3).compress()
    assert duck.asked == [(3, None)]
    assert masks


def test_an_evaluator_without_evaluation_says_so():
    with pytest.raises(ConfigError, match="without evaluating_func="):
        TorchEvaluator(print, None, loss)(network())
