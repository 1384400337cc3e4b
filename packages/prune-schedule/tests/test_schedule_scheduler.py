"""The predecessor's scheduler runs the schedule that its task generator names."""

import pytest
import torch
from torch import nn

import prune_schedule
from prune_core import BasicPruner, ConfigError, PruneError, Reference, hookimpl
from prune_core.registry import registered
from prune_schedule import (
    AGPTaskGenerator,
    LinearTaskGenerator,
    LotteryTicketTaskGenerator,
    PruningScheduler,
    SimulatedAnnealingTaskGenerator,
)

RULES = [{"sparsity": 0.5, "op_types": ["Linear"]}]
X = torch.rand(4, 6, generator=torch.Generator().manual_seed(1))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 2))


def score(model):
    with torch.no_grad():
        return -float(model(X).square().mean())


@pytest.mark.parametrize(
    ("generator", "schedule"),
    [(AGPTaskGenerator, "AGPPruner"), (LinearTaskGenerator, "LinearPruner")],
)
def test_rounds(generator, schedule, toys, tmp_path):
    rules = [{"sparsity": 0.5, "op_names": ["0", "2"]}]
    tuned, model, other = [], network(), network()
    pruner = toys.Channels(None, None)
    tasks = generator(3, model, rules, log_dir=tmp_path, keep_intermediate_result=True)
    scheduler = PruningScheduler(
        pruner, tasks, finetuner=tuned.append, speedup=True, dummy_input=X, evaluator=None,
        reset_weight=False,
    )  # fmt: skip
    returned = scheduler.compress()
    number, small, _, best, _ = scheduler.get_best_result()
    assert (number, best, len(tuned)) == (3, None, 4)
    assert tuned[0] is model is scheduler.schedule.bound_model
    assert [returned[0][0].out_features, returned[0][2].out_features] == [4, 5]
    plain = getattr(prune_schedule, schedule)(other, rules, toys.Channels, 3)
    _, expected = plain.compress()
    for name, mask in expected.items():
        assert torch.equal(scheduler.schedule.masks[name]["weight"], mask["weight"])
    assert [small[0].out_features, small[2].out_features] == [4, 5]
    torch.testing.assert_close(small(X), model(X))
    assert (tmp_path / "intermediate_result/3/masks.pth").exists()


def test_annealing(toys):
    model = network()
    tasks = SimulatedAnnealingTaskGenerator(model, RULES, None, 100, 20, 0.3)
    scheduler = PruningScheduler(toys.Weights(None, None), tasks, evaluator=score)
    with pytest.raises(PruneError, match="no result yet"):
        scheduler.get_best_result()
    scheduler.compress()
    _, best, masks, value, _ = scheduler.get_best_result()
    assert value == max(trial["score"] for trial in scheduler.schedule.trials)
    assert score(best) == pytest.approx(value)
    assert sum(int(m["weight"].sum()) for m in masks.values()) == pytest.approx(74, abs=2)


def test_lottery_tickets_go_to_the_package_that_has_them(toys):
    seen = {}

    class Ticket(BasicPruner):
        def __init__(self, model, config_list, pruning_algorithm, **options):
            seen.update(options)
            self.one = pruning_algorithm(model, config_list)

        def compress(self):
            return self.one.compress()

    class Plugin:
        @hookimpl
        def prune_register_pruners(self):
            return {"lottery_ticket": Reference("schedule_toys:Ticket")}

    toys.Ticket = Ticket
    tasks = LotteryTicketTaskGenerator(2, model := network(), RULES)
    scheduler = PruningScheduler(toys.Weights(None, None), tasks, len, reset_weight=True)
    tasks.schedule = "tickets:lottery_ticket"
    with registered(Plugin(), "tickets"):
        assert scheduler.compress()[0] is model
    assert (seen["total_iteration"], seen["finetuner"], seen["reset_weight"]) == (2, len, True)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda p, t: PruningScheduler("l1", t), "pruner is a str; it must be a pruner without"),
        (lambda p, t: PruningScheduler(p, "agp"), "task_generator is a str; it must be one"),
        (lambda p, t: PruningScheduler(p, t, reset_weight=True), "LotteryTicketTaskGenerator"),
        (lambda p, t: AGPTaskGenerator(2, t.model, RULES, {"0": {}}), "origin_masks has masks"),
    ],
)
def test_mistakes(build, says, toys):
    with pytest.raises(ConfigError, match=says):
        build(toys.Weights(None, None), AGPTaskGenerator(2, network(), RULES))


def test_a_pruner_without_a_model_is_told_what_is_missing(toys):
    pruner = toys.Weights(None, None)
    assert pruner.get_modules_wrapper() == {}
    with pytest.raises(PruneError, match="model is a NoneType"):
        toys.Weights(None, RULES)
    with pytest.raises(ConfigError, match="config_list is None"):
        toys.Weights(network(), None)
    pruner.reset(network(), RULES)
    assert list(pruner.compress()[1]) == ["0", "2", "4"]
