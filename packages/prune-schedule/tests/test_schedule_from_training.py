"""Criteria that need data get them from the training that a schedule prunes in."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prune_core import BasicPruner, ConfigError, PruneError, PruneWarning
from prune_schedule import AGPPruner, ConstantPruner, LinearPruner
from prune_toolkit import (
    ActivationCollector,
    GradientCollector,
    InputNormCollector,
    NormalSparsityAllocator,
    NormMetricsCalculator,
    StraightMetricsCalculator,
)

EPOCHS = [{"final_sparsity": 0.75, "end_epoch": 4, "op_types": ["Conv2d"]}]
STEPS = [{"final_sparsity": 0.75, "end_step": 5, "op_types": ["Conv2d"]}]
ROUNDS = [{"sparsity": 0.75, "op_types": ["Conv2d"]}]


class Terms(GradientCollector):
    """(g·w)² of each output channel, summed over the backward passes."""

    def contribution(self, wrapper, weight, gradient):
        return super().contribution(wrapper, weight, gradient).square().flatten(1).sum(1)


class Taylor(BasicPruner):
    """A criterion of a stranger: it has to be given `calibrate`, and does not declare more."""

    def __init__(self, model, config_list, calibrate, batches=None):
        self.calibrate, self.batches = calibrate, batches
        super().__init__(model, config_list)

    def reset_tools(self):
        self.data_collector = Terms(self, self.calibrate, self.batches)
        self.metrics_calculator = StraightMetricsCalculator()
        self.sparsity_allocator = NormalSparsityAllocator(self, channels=True)


class Active(BasicPruner):
    """The channels that are positive least often; it declares that it needs data."""

    needs_data = True

    def __init__(self, model, config_list, trainer=None, *, calibrate=None):
        self.calibrate = calibrate or trainer
        super().__init__(model, config_list)

    def reset_tools(self):
        self.data_collector = ActivationCollector(self, self.calibrate, statistic=lambda x: x > 0)
        self.metrics_calculator = StraightMetricsCalculator()
        self.sparsity_allocator = NormalSparsityAllocator(self, channels=True)


class Inputs(BasicPruner):
    """The channels whose weights are smallest times their inputs; options are not spelt out."""

    needs_data = True

    def __init__(self, model, config_list, **options):
        super().__init__(model, config_list, **options)

    def reset_tools(self):
        self.data_collector = InputNormCollector(self, *self.calibration_of([]))
        self.metrics_calculator = NormMetricsCalculator(0, p=1)
        self.sparsity_allocator = NormalSparsityAllocator(self, channels=True)


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 2)
    )


def batch(number):
    generator = torch.Generator().manual_seed(number)
    return torch.randn(16, 1, 8, 8, generator=generator), torch.arange(16) % 2


def step(model, optimizer, number):
    optimizer.zero_grad()
    x, y = batch(number)
    F.cross_entropy(model(x), y).backward()
    optimizer.step()


def finetune(model, steps=3):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for number in range(steps):
        step(model, optimizer, number)


def kept(pruner):
    return {n: int(m["bias"].sum()) for n, m in pruner.masks.items()}


def terms_of(model, numbers):
    """The same scores from nothing but torch, without training in between."""
    scores = {"0": torch.zeros(8), "2": torch.zeros(8)}
    for number in numbers:
        model.zero_grad()
        x, y = batch(number)
        F.cross_entropy(model(x), y).backward()
        for name, score in scores.items():
            weight = model.get_submodule(name).weight
            score += (weight * weight.grad).square().flatten(1).sum(1).detach()
    model.zero_grad()
    return scores


@pytest.mark.parametrize("algorithm", [Taylor, Active, Inputs])
def test_epochs_are_pruned_by_what_the_epoch_before_has_shown(algorithm):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner = LinearPruner(model, EPOCHS, optimizer, algorithm)
    pruner.compress()
    left = []
    for epoch in range(5):
        pruner.update_epoch(epoch)
        for number in range(3):
            step(model, optimizer, number)
        left.append(kept(pruner))
    assert [list(n.values()) for n in left] == [[8, 8], [6, 6], [4, 4], [2, 2], [2, 2]]
    # When the last masks are made, nothing looks any more.
    assert not model._forward_pre_hooks
    assert not model[0].module._forward_hooks
    assert not model[0].module._forward_pre_hooks
    assert not model[0].module.weight._backward_hooks


def test_scores_are_those_of_the_batches_since_the_last_masks():
    model = net()
    expected = terms_of(copy.deepcopy(model), [3, 4, 5])
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    pruner = LinearPruner(model, EPOCHS, optimizer, Taylor)
    pruner.compress()
    pruner.update_epoch(0)
    for number in (3, 4, 5):
        step(model, optimizer, number)
    pruner.update_epoch(1)
    for name, scores in expected.items():
        gone = (~pruner.masks[name]["bias"]).nonzero().flatten().tolist()
        assert sorted(gone) == sorted(scores.argsort()[:2].tolist())


def test_only_so_many_batches_count_as_are_asked_for():
    model = net()
    expected = terms_of(copy.deepcopy(model), [3, 4])
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    pruner = LinearPruner(model, EPOCHS, optimizer, Taylor, pruning_params={"batches": 2})
    pruner.compress()
    pruner.update_epoch(0)
    for number in (3, 4, 5, 6):
        step(model, optimizer, number)
    pruner.update_epoch(1)
    gone = (~pruner.masks["0"]["bias"]).nonzero().flatten().tolist()
    assert sorted(gone) == sorted(expected["0"].argsort()[:2].tolist())


def test_each_optimizer_step_can_prune():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner = LinearPruner(model, STEPS, optimizer, Taylor)
    pruner.compress()
    left = []
    for number in range(6):
        step(model, optimizer, number)
        left.append(kept(pruner)["0"])
    assert left == [7, 5, 4, 2, 2, 2]


def test_masks_that_are_due_before_training_wait_for_it():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    rules = [{**EPOCHS[0], "initial_sparsity": 0.5}]
    pruner = LinearPruner(model, rules, optimizer, Taylor)
    pruner.compress()
    pruner.update_epoch(0)
    assert kept(pruner) == {"0": 8, "2": 8}
    step(model, optimizer, 0)
    assert kept(pruner) == {"0": 4, "2": 4}


@pytest.mark.parametrize("algorithm", [Taylor, Active])
def test_rounds_are_pruned_by_what_the_fine_tuning_before_has_shown(algorithm):
    seen = []

    def evaluate(model):
        seen.append(dict(pruner.one_shot.data_collector._sums))
        model.eval()
        model(batch(0)[0])  # what an evaluation runs is nobody's training
        assert dict(pruner.one_shot.data_collector._sums) == seen[-1]
        return 1.0

    pruner = LinearPruner(net(), ROUNDS, algorithm, 3, finetuner=finetune, evaluator=evaluate)
    result = pruner.run()
    assert [trial["sparsities"]["0"] for trial in result.trials] == [0.0, 0.25, 0.5, 0.75]


def test_a_run_that_is_killed_ends_with_the_same_masks(tmp_path):
    def run(path, dies=False):
        calls = []

        def tuned(model):
            calls.append(1)
            finetune(model)
            if dies and len(calls) == 2:
                raise OSError("killed")

        pruner = LinearPruner(net(), ROUNDS, Taylor, 3, finetuner=tuned, checkpoint=path)
        return pruner.run().masks

    whole = run(tmp_path / "whole.pt")
    with pytest.raises(OSError, match="killed"):
        run(tmp_path / "killed.pt", dies=True)
    again = run(tmp_path / "killed.pt")
    for name in ("0", "2"):
        assert torch.equal(whole[name]["weight"], again[name]["weight"])


def test_a_state_holds_what_has_been_seen():
    def halves(again):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        pruner = LinearPruner(model, EPOCHS, optimizer, Taylor)
        pruner.compress()
        for epoch in range(2):
            pruner.update_epoch(epoch)
            for number in range(3):
                step(model, optimizer, number)
        if again:
            state, weights = pruner.state_dict(), copy.deepcopy(model.state_dict())
            model = net()
            pruner = LinearPruner(model, EPOCHS, pruning_algorithm=Taylor)
            pruner.compress()
            pruner.load_state_dict(state)
            model.load_state_dict(weights)
        pruner.update_epoch(2)
        return pruner.masks

    once, again = halves(False), halves(True)
    assert kept_in(once) == kept_in(again) == {"0": 4, "2": 4}
    assert all(torch.equal(once[n]["weight"], again[n]["weight"]) for n in once)


def kept_in(masks):
    return {n: int(m["bias"].sum()) for n, m in masks.items()}


def test_a_training_that_shows_nothing_is_told():
    model = net().eval()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner = LinearPruner(model, EPOCHS, optimizer, Active)
    pruner.compress()
    pruner.update_epoch(0)
    step(model, optimizer, 0)  # in eval mode
    with pytest.warns(PruneWarning, match="there are none for '0' and 1 more so far"):
        pruner.update_epoch(1)
    assert kept(pruner) == {"0": 8, "2": 8}
    model.train()
    step(model, optimizer, 0)
    assert kept(pruner) == {"0": 6, "2": 6}


def test_rounds_without_anything_to_look_at_are_refused():
    pruner = LinearPruner(net(), ROUNDS, Taylor, 3)
    with pytest.raises(ConfigError, match="nothing runs the model here. Give finetune="):
        pruner.run()
    pruner = ConstantPruner(net(), ROUNDS, Taylor, 3, finetuner=finetune)
    with pytest.raises(ConfigError, match="Round 0 prunes before anything has been trained"):
        pruner.run()
    pruner = LinearPruner(net(), ROUNDS, Taylor, 3, finetuner=lambda model: None)
    with pytest.raises(PruneError, match="fine-tuning of round 0 has provided none for '0'"):
        pruner.run()


class Alone(BasicPruner):
    """Runs the model itself, in a way that no training would show."""

    def __init__(self, model, config_list, calibrate):
        self.calibrate = calibrate
        super().__init__(model, config_list)

    def reset_tools(self):
        self.data_collector = None


def test_what_no_training_can_show_has_to_be_given():
    model = net()
    with pytest.raises(ConfigError, match="Alone cannot get what it needs from the training"):
        AGPPruner(model, ROUNDS, Alone, 3)
    assert isinstance(model[0], nn.Conv2d)


def test_steps_that_a_gradient_scaler_skips_spoil_no_scores():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    pruner = LinearPruner(model, STEPS, optimizer, Taylor)
    pruner.compress()
    left = []
    for number in range(8):
        optimizer.zero_grad()
        x, y = batch(number)
        loss = F.cross_entropy(model(x), y) * (float("inf") if number in (1, 4) else 1.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        left.append(kept(pruner)["0"])
    assert left == [7, 7, 5, 4, 4, 2, 2, 2]
    assert pruner.steps == 6


def test_a_copy_of_the_model_shows_nothing_and_the_model_can_be_pickled():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner = LinearPruner(model, EPOCHS, optimizer, Active)
    pruner.compress()
    averaged = torch.optim.swa_utils.AveragedModel(model)
    averaged.train()
    averaged(batch(0)[0])
    assert pruner.one_shot.data_collector.lacking() == ["0", "2"]
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again(batch(0)[0]), model(batch(0)[0]))
    assert pruner.one_shot.data_collector.lacking() == []
