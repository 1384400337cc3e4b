"""Tickets by a criterion that needs data, which the training of each round shows."""

import pytest
import torch
from torch import nn

from prune_core import BasicPruner, PruneError
from prune_lottery import LotteryTicket, LotteryTicketPruner
from prune_toolkit import GradientCollector, NormalSparsityAllocator, StraightMetricsCalculator

RULES = [{"sparsity": 0.75, "op_types": ["Linear"]}]


class Saliency(BasicPruner):
    """The single weights with the smallest |Σ g·w|."""

    def __init__(self, model, config_list, calibrate):
        self.calibrate = calibrate
        super().__init__(model, config_list)

    def reset_tools(self):
        self.data_collector = GradientCollector(self, self.calibrate)
        self.metrics_calculator = StraightMetricsCalculator()
        self.sparsity_allocator = NormalSparsityAllocator(self, transform=torch.abs)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def train(model):
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(16, 8, generator=generator)).square().mean().backward()
        optimizer.step()


def test_each_round_is_pruned_by_the_training_before():
    model = net()
    result = LotteryTicket(model, RULES, rounds=2, pruning_algorithm=Saliency).run(train=train)
    assert [record.sparsity for record in result.rounds] == pytest.approx([0, 0.5, 0.75])
    assert not model._forward_pre_hooks
    assert not model[0].module.weight._backward_hooks


def test_the_same_masks_as_by_hand():
    model = net()
    lottery = LotteryTicket(model, RULES, rounds=2, pruning_algorithm=Saliency)
    lottery.run(train=train)
    plain = net()
    sums = dict.fromkeys(("0", "2"), 0.0)
    for name in sums:
        weight = plain.get_submodule(name).weight

        def add(gradient, name=name, weight=weight):
            sums[name] = sums[name] + gradient * weight.detach()

        weight.register_hook(add)
    train(plain)
    for name, score in sums.items():
        flat = score.abs().flatten()
        expected = torch.ones_like(flat, dtype=torch.bool)
        expected[flat.argsort()[: flat.numel() // 2]] = False
        assert torch.equal(lottery.masks(1)[name]["weight"].flatten(), expected)


def test_a_run_that_is_killed_goes_on_with_the_same_masks(tmp_path):
    def run(path, dies=False):
        calls = []

        def tuned(model):
            calls.append(1)
            train(model)
            if dies and len(calls) == 2:
                raise OSError("killed")

        lottery = LotteryTicket(net(), RULES, rounds=2, pruning_algorithm=Saliency, checkpoint=path)
        lottery.run(train=tuned)
        return lottery.masks(2)

    whole = run(tmp_path / "whole.pt")
    with pytest.raises(OSError, match="killed"):
        run(tmp_path / "killed.pt", dies=True)
    again = run(tmp_path / "killed.pt")
    assert all(torch.equal(whole[n]["weight"], again[n]["weight"]) for n in whole)


def test_a_loop_of_the_users_own():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner = LotteryTicketPruner(
        model, RULES, optimizer, pruning_algorithm=Saliency, total_iteration=2
    )
    pruner.compress()
    sparsities = []
    for _ in pruner.get_prune_iterations():
        pruner.prune_iteration_start()
        train(model)
        sparsities.append(1 - pruner.masks["0"]["weight"].float().mean().item())
    assert sparsities == pytest.approx([0, 0.5, 0.75])
    assert not model._forward_pre_hooks


def test_a_training_that_shows_nothing_is_told():
    lottery = LotteryTicket(net(), RULES, rounds=2, pruning_algorithm=Saliency)
    with pytest.raises(PruneError, match="round before has provided none for '0'"):
        lottery.run(train=lambda model: None)


@pytest.mark.parametrize("form", ["evaluator", "finetune"])
def test_an_evaluator_that_trains_is_the_finetuner(form):
    class Evaluator:
        trained = 0

        def train(self, model, max_steps=None, max_epochs=None):
            self.trained += 1

        def __call__(self, model):
            return 0.5

    evaluator = Evaluator()
    pruner = LotteryTicketPruner(
        net(), RULES, total_iteration=2, pruning_algorithm="tiny_level", **{form: evaluator}
    )
    pruner.compress()
    assert evaluator.trained == 3
    assert pruner.get_best_result()[3] == 0.5


def test_what_is_under_way_is_told(caplog):
    ticket = LotteryTicket(net(), RULES, rounds=2, pruning_algorithm="tiny_level")
    ticket.run(train=train, evaluate=lambda model: 0.5)
    assert caplog.messages[0] == "LotteryTicket: 3 rounds, to a sparsity of 75.0% in 2 layers"
    assert caplog.messages[-1].startswith("LotteryTicket: 3 rounds in ")
    assert caplog.messages[-1].endswith(", sparsity 75.0%, score 0.5")
