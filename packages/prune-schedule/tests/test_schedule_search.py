"""Searches: budgets kept, scores met, models left as they were."""

import json

import pytest
import torch
from small_search import RULES, anneal, closeness, net
from torch import nn

from prune_core import ConfigError, PruneWarning
from prune_core.amount import number_to_prune
from prune_core.masking import PrunerModuleWrapper
from prune_core.testing import check_pruner
from prune_schedule import SimulatedAnnealingPruner

pytest.importorskip("optuna", reason="searches are kept in Optuna studies")


def test_it_finds_better_than_uniform_and_keeps_the_budget():
    pruner = anneal(evaluator=closeness([0.2, 0.6, 0.65]))
    result = pruner.run()
    uniform, *others = result.trials
    assert uniform["sparsities"] == {"0": 0.5, "2": 0.5, "4": 0.5}
    assert result.score > uniform["score"]
    assert result.score == max(trial["score"] for trial in result.trials)
    for trial in others:
        assert trial["sparsity"] == pytest.approx(0.5, abs=0.002)
        assert trial["sparsity"] <= 0.5
    kept = sum(int(mask["weight"].sum()) for mask in result.masks.values())
    assert kept == pytest.approx(2300 / 2, abs=3)
    assert result.complete


def test_the_number_of_trials_is_known():
    # 100 · 0.9^16 is the first temperature below 20; two trials begin the search
    pruner = anneal(evaluator=lambda model: 1.0)
    assert pruner.length == 18 == len(pruner.run().trials)


def test_a_score_can_be_minimised():
    good = closeness([0.2, 0.6, 0.65])
    up = anneal(evaluator=good).run()
    down = anneal(evaluator=lambda model: -good(model), optimize_mode="minimize").run()
    assert down.score == -up.score
    assert down.sparsities == up.sparsities


def test_entries_keep_budgets_of_their_own():
    rules = [
        {"sparsity": 0.3, "op_names": ["0"]},
        {"sparsity": 0.6, "op_names": ["2", "4"], "max_sparsity_per_layer": 0.7},
    ]
    for trial in anneal(rules=rules, evaluator=lambda model: 1.0).run().trials:
        planned = trial["sparsities"]
        assert planned["0"] == 0.3
        masked = number_to_prune(planned["2"], 1200) + number_to_prune(planned["4"], 300)
        assert masked == 900
        assert max(planned.values()) <= 0.7


def test_the_call_of_older_releases(tmp_path):
    pruner = SimulatedAnnealingPruner(
        net(),
        RULES,
        evaluator=closeness([0.5, 0.5, 0.5]),
        base_algo="smallest",
        cool_down_rate=0.5,
        experiment_data_dir=tmp_path,
    )
    model, _ = pruner.compress()
    assert isinstance(model[0], PrunerModuleWrapper)
    number, plain, _, score, config_list = pruner.get_best_result()
    assert score == pruner.trials[number]["score"]
    assert isinstance(plain[0], nn.Linear)
    assert [entry["op_names"] for entry in config_list] == [["0"], ["2"], ["4"]]
    assert (tmp_path / "best_result" / "masks.pth").exists()
    assert len(json.loads((tmp_path / "trials.json").read_text())) == pruner.length


def test_the_calls_of_later_releases(tmp_path):
    model = net()
    pruner = SimulatedAnnealingPruner(
        *(model, RULES, closeness([0.5, 0.5, 0.5]), 100, 80, 0.9, 0.35, "smallest", {}),
        *(tmp_path, False, None, False, None),
    )
    assert pruner.length == 5
    pruner.compress()
    assert (tmp_path / "best_result" / "masks.pth").exists()
    named = SimulatedAnnealingPruner(
        model=net(),
        config_list=RULES,
        evaluate=closeness([0.5, 0.5, 0.5]),
        start_temperature=100,
        stop_temperature=80,
        pruning_algorithm="smallest",
        pruning_params={},
    )
    named.compress()
    assert named.sparsities == pruner.sparsities
    with pytest.warns(PruneWarning, match="keep_intermediate_result=True has no effect"):
        anneal(keep_intermediate_result=True)
    with pytest.raises(ConfigError, match="speedup is True and dummy_input is missing"):
        anneal(speedup=True)


def test_speedup_makes_the_result_small_and_leaves_the_model():
    model = net()
    pruner = anneal(
        model,
        [{**RULES[0], "op_names": ["0", "2"]}],
        evaluator=lambda model: 1.0,
        pruning_algorithm="channels",
        speedup=True,
        dummy_input=torch.rand(2, 20),
    )
    small, masks = pruner.compress()
    again = pruner.get_best_result()[1]
    for made in (small, again):
        assert (made[0].out_features, made[2].out_features) == (20, 15)
    assert not masks
    assert model[0].module.out_features == 40


def test_a_search_with_speedup_scores_what_removal_will_leave():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)).eval()
    nn.init.uniform_(model[1].bias, 1, 2)  # what a masked channel would still send on
    x = torch.rand(4, 4)
    seen = []

    def evaluate(model):
        seen.append(model(x).detach())
        return 1.0

    pruner = anneal(
        model,
        [{"sparsity": 0.5, "op_names": ["0"]}],
        evaluator=evaluate,
        pruning_algorithm="channels",
        speedup=True,
        dummy_input=x,
        cool_down_rate=0.5,
    )
    small, _ = pruner.compress()
    assert small[0].out_features == 4
    torch.testing.assert_close(small(x), seen[0])


def test_a_finetuner_trains_in_each_trial_and_the_best_keeps_what_it_learnt():
    def search(folder=None, stop_after=100):
        model, tuned, left = net(), [], iter(range(stop_after))

        def finetune(model):
            weight = model[0].module.weight
            tuned.append(weight[0, 0].item())
            with torch.no_grad():
                weight.add_(torch.rand(()))

        def evaluate(model):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return model[0].module.weight.mean().item()

        pruner = anneal(
            model, evaluate=evaluate, finetune=finetune, cool_down_rate=0.7, checkpoint=folder
        )
        result = pruner.run()
        return pruner, result, tuned, evaluate

    before = net()[0].weight[0, 0].item()
    pruner, result, tuned, evaluate = search()
    assert tuned == [before] * pruner.length
    assert result.score == max(trial["score"] for trial in result.trials)
    assert evaluate(pruner.bound_model) == result.score
    weights = {n: value.clone() for n, value in pruner.bound_model.state_dict().items()}
    # What has been found does not change what a search is that goes through it once more.
    assert pruner.run().score == result.score
    again = pruner.bound_model.state_dict()
    assert all(torch.equal(again[name], value) for name, value in weights.items())

    # One that is stopped ends with what the best so far was tuned to, and goes on from the start.
    stopped, result, *_ = search(stop_after=4)
    assert not result.complete
    assert stopped.bound_model[0].module.weight.mean().item() == result.score
    stopped.run(lambda model: model[0].module.weight.mean().item())
    found = stopped.bound_model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in weights.items())


@pytest.mark.parametrize("seed", [-1, 20261121, 2**70])
def test_any_whole_number_is_a_seed(seed):
    evaluate = closeness([0.2, 0.6, 0.65])
    first, again = (anneal(evaluator=evaluate, seed=seed).run() for _ in range(2))
    assert first.sparsities == again.sparsities


def test_weights_are_never_changed():
    model = net()
    before = [p.detach().clone() for p in model.parameters()]
    anneal(model, evaluator=closeness([0.2, 0.6, 0.65])).run()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_it_keeps_what_every_pruner_promises():
    check_pruner(
        SimulatedAnnealingPruner,
        pruning_algorithm="channels",
        evaluator=lambda model: 1.0,
        cool_down_rate=0.5,
        skip=["sparsity"],  # which is that of all layers together
    )
