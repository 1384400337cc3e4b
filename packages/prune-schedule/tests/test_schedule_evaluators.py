"""An object that trains and scores, as NNI 2.9 wanted one, does both in a schedule."""

import pytest
import torch
from torch import nn

from prune_core import ConfigError
from prune_schedule import (
    ADMMPruner,
    AGPPruner,
    AutoCompressPruner,
    LinearPruner,
    NetAdaptPruner,
    SensitivityPruner,
    SimulatedAnnealingPruner,
)

RULES = [{"sparsity": 0.5, "op_types": ["Linear"]}]


class Evaluator:
    """As `prune_filter.TorchEvaluator`, which this package must not know."""

    def __init__(self, scores=True, dummy_input=None):
        self.trained, self.dummy_input = [], dummy_input
        self.evaluating_func = (lambda model: 0.5) if scores else None

    def train(self, model, max_steps=None, max_epochs=None):
        self.trained.append((max_steps, max_epochs))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1e-3)

    def __call__(self, model):
        if self.evaluating_func is None:
            raise ConfigError("it cannot score")
        return self.evaluating_func(model)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))


@pytest.mark.parametrize("form", ["name", "position", "run"])
@pytest.mark.parametrize("schedule", [AGPPruner, LinearPruner])
def test_a_schedule_is_tuned_in_each_iteration(schedule, form):
    evaluator = Evaluator()
    if form == "position":
        pruner = schedule(net(), RULES, "smallest", 4, None, False, evaluator)
    elif form == "name":
        pruner = schedule(net(), RULES, "smallest", 4, evaluator=evaluator)
    else:
        pruner = schedule(net(), RULES, "smallest", 4)
    result = pruner.run(evaluate=evaluator) if form == "run" else pruner.run()
    assert evaluator.trained == [(None, None)] * 5
    assert [trial["score"] for trial in result.trials] == [0.5] * 5


def test_a_finetuner_comes_before_the_training_of_an_evaluator():
    evaluator, calls = Evaluator(), []
    AGPPruner(net(), RULES, "smallest", 2, finetuner=calls.append, evaluator=evaluator).run()
    assert len(calls) == 3
    assert not evaluator.trained


def test_an_evaluator_that_cannot_score_trains_all_the_same():
    evaluator = Evaluator(scores=False)
    result = AGPPruner(net(), RULES, "smallest", 2, evaluator=evaluator).run()
    assert len(evaluator.trained) == 3
    assert result.score is None


def test_an_evaluator_brings_the_input_for_speedup():
    evaluator = Evaluator(dummy_input=torch.randn(1, 8))
    rules = [{"sparsity": 0.5, "op_names": ["0"]}]
    model = net()
    pruner = AGPPruner(model, rules, "channels", 2, evaluator=evaluator, speedup=True)
    small, masks = pruner.compress()
    assert [tuple(p.shape) for p in small.parameters()] == [(4, 8), (4,), (8, 4), (8,)]
    assert not masks
    x = torch.randn(3, 8)
    torch.testing.assert_close(small(x), model(x))


@pytest.mark.parametrize("form", ["name", "position"])
def test_admm_trains_with_an_evaluator(form):
    evaluator = Evaluator(scores=False)
    if form == "name":
        pruner = ADMMPruner(
            net(),
            RULES,
            evaluator=evaluator,
            iterations=2,
            training_epochs=3,
            pruning_algorithm="smallest",
        )
    else:
        pruner = ADMMPruner(net(), RULES, evaluator, 2, 3, pruning_algorithm="smallest")
    pruner.compress()
    assert evaluator.trained == [(None, 3)] * 2


def test_a_search_is_tuned_in_each_trial():
    evaluator = Evaluator()
    pruner = SimulatedAnnealingPruner(
        net(), RULES, evaluator, pruning_algorithm="smallest", cool_down_rate=0.5
    )
    pruner.run()
    assert len(evaluator.trained) == 5


@pytest.mark.parametrize("form", ["name", "finetuner", "position", "run"])
def test_netadapt_tunes_each_candidate(form):
    evaluator, model = Evaluator(), net()
    bias = model[0].bias.detach().clone()
    options = {"pruning_algorithm": "smallest", "sparsity_per_iteration": 0.25}
    if form == "name":
        pruner = NetAdaptPruner(model, RULES, evaluator=evaluator, **options)
    elif form == "finetuner":
        pruner = NetAdaptPruner(model, RULES, short_term_fine_tuner=evaluator, **options)
    elif form == "position":
        pruner = NetAdaptPruner(model, RULES, evaluator, **options)
    else:
        pruner = NetAdaptPruner(model, RULES, **options)
    result = pruner.run(evaluator) if form == "run" else pruner.run()
    assert evaluator.trained == [(None, None)] * (len(result.trials) - 1) != []
    # Two rounds, each of which keeps what its best candidate was trained to.
    torch.testing.assert_close(model[0].bias, bias + 2e-3)


@pytest.mark.parametrize("form", ["name", "finetuner", "run"])
def test_sensitivity_tunes_after_each_round(form):
    evaluator, model = Evaluator(), net()
    bias = model[0].bias.detach().clone()
    options = {"pruning_algorithm": "smallest", "sparsity_per_iter": 0.25, "ratios": [0.3, 0.6]}
    if form == "name":
        pruner = SensitivityPruner(model, RULES, evaluator=evaluator, **options)
    elif form == "finetuner":
        pruner = SensitivityPruner(model, RULES, finetuner=evaluator, **options)
    else:
        pruner = SensitivityPruner(model, RULES, **options)
    result = pruner.run(evaluator) if form == "run" else pruner.run()
    assert evaluator.trained == [(None, None)] * 2
    torch.testing.assert_close(model[0].bias, bias + 2e-3)
    assert result.score == 0.5


@pytest.mark.parametrize("search", [NetAdaptPruner, SensitivityPruner])
def test_a_function_that_tunes_comes_before_the_training_of_an_evaluator(search):
    evaluator, calls = Evaluator(), []
    search(
        net(), RULES, evaluator=evaluator, finetune=calls.append, pruning_algorithm="smallest"
    ).run()
    assert calls
    assert not evaluator.trained


@pytest.mark.parametrize("search", [NetAdaptPruner, SensitivityPruner])
def test_an_evaluator_brings_the_input_for_a_target(search):
    x = torch.randn(2, 8)
    pruner = search(
        net(),
        [{"op_names": ["0"]}],
        evaluator=Evaluator(dummy_input=x),
        pruning_algorithm="units",
        target={"parameters": 0.7},
    )
    assert pruner.dummy_input is x
    assert pruner.run().complete


def test_autocompress_trains_with_an_evaluator():
    evaluator = Evaluator()
    pruner = AutoCompressPruner(
        net(),
        RULES,
        2,
        {"evaluator": evaluator, "iterations": 2, "training_epochs": 1},
        {"evaluator": evaluator, "pruning_algorithm": "smallest", "cool_down_rate": 0.5},
        evaluator=evaluator,
    )
    pruner.run()
    # Twice in each round for ADMM, and once at its end; never in a trial of the search.
    assert evaluator.trained == [*[(None, 1)] * 2, (None, None)] * 2
