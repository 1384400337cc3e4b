"""NetAdapt, on models where the layer that it has to choose is known."""

import itertools
import time

import pytest
import torch
from torch import nn

from prune_core import ConfigError, PruneError, PruneWarning
from prune_core.masking import PrunerModuleWrapper
from prune_core.testing import check_pruner
from prune_schedule import NetAdaptPruner

RULES = [{"sparsity": 0.5, "op_types": ["Linear"]}]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 10, bias=False), nn.ReLU(), nn.Linear(10, 10, bias=False))


def pruned(model):
    return [1 - m.masks["weight"].float().mean().item() for m in model if hasattr(m, "masks")]


def costs(*prices):
    """Return an evaluation that loses so much for all of each layer."""

    def evaluate(model):
        return 1.0 - sum(p * c for p, c in zip(pruned(model), prices, strict=True))

    return evaluate


def adapt(model=None, evaluator=None, rules=RULES, **arguments):
    arguments = {"pruning_algorithm": "smallest", "sparsity_per_iteration": 0.1, **arguments}
    return NetAdaptPruner(model or net(), rules, None, evaluator, **arguments)


def nudge(model):
    """Change every weight a little, at random."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


def test_it_takes_from_the_layer_that_costs_least():
    pruner = adapt(evaluator=costs(1.0, 0.1))
    result = pruner.run()
    # Half of 200 weights, 20 in each round, and all of the second layer's that it may lose: with
    # four rounds 80, and in the fifth it cannot lose 100 of 100, so 20 come from the first.
    assert result.sparsities == pytest.approx({"0": 0.2, "2": 0.8})
    assert result.score == pytest.approx(1 - 0.2 - 0.08)
    # the dense model, and then four rounds with two candidates and one with the first layer alone
    assert len(result.trials) == 1 + 4 * 2 + 1
    assert [trial["sparsities"] for trial in result.trials[1:3]] == [
        {"0": 0.2, "2": 0.0},
        {"0": 0.0, "2": 0.2},
    ]


def test_the_last_round_takes_no_more_than_is_needed():
    result = adapt(evaluator=costs(1.0, 0.1), sparsity_per_iteration=0.2).run()
    # 40, 40, and then the 20 that are missing; of the second layer none are left to lose
    assert result.sparsities == pytest.approx({"0": 0.2, "2": 0.8})


def test_the_step_is_halved_where_no_layer_can_make_it():
    rules = [{**RULES[0], "max_sparsity_per_layer": 0.5}]
    # A round would take 80 weights of one layer, which may lose 50: so it takes 40.
    result = adapt(rules=rules, evaluator=costs(1.0, 0.1), sparsity_per_iteration=0.4).run()
    assert result.trials[1]["sparsities"] == {"0": 0.4, "2": 0.0}
    assert result.sparsities == {"0": 0.5, "2": 0.5}


def test_a_score_can_be_minimised():
    good = costs(1.0, 0.1)
    pruner = adapt(evaluator=lambda model: -good(model), optimize_mode="minimize")
    assert pruner.run().sparsities == pytest.approx({"0": 0.2, "2": 0.8})


def test_entries_keep_budgets_of_their_own():
    rules = [{"sparsity": 0.2, "op_names": ["0"]}, {"sparsity": 0.6, "op_names": ["2"]}]
    result = adapt(rules=rules, evaluator=costs(1.0, 0.1), sparsity_per_iteration=0.2).run()
    assert result.sparsities == {"0": 0.2, "2": 0.6}


# --- fine-tuning ------------------------------------------------------------------------------


def test_every_candidate_is_tuned_from_the_same_weights_and_the_best_goes_on():
    model = net()
    with torch.no_grad():
        model[0].weight.zero_()
    seen = []

    def finetune(model):
        weight = model[0].module.weight
        seen.append(weight.mean().item())
        with torch.no_grad():
            weight.add_(1.0)

    # Both candidates of round 1 begin with 0, and the one of round 2 with what the best of them
    # was tuned to; the second layer cannot lose the rest of its weights.
    result = adapt(model, costs(1.0, 0.1), finetune=finetune, sparsity_per_iteration=0.25).run()
    assert seen == pytest.approx([0, 0, 1])
    assert model[0].module.weight.mean().item() == pytest.approx(2.0)
    assert result.sparsities == {"0": 0.5, "2": 0.5}


def test_what_is_masked_stays_masked():
    masks = []

    def finetune(model):
        with torch.no_grad():
            for layer in (model[0], model[2]):
                layer.module.weight.masked_fill_(~layer.masks["weight"], 9.0)

    pruner = adapt(evaluator=costs(1.0, 0.9), finetune=finetune)
    adopt = pruner.adopt

    def watched(*arguments):
        adopt(*arguments)
        masks.append({n: m["weight"].clone() for n, m in pruner._base.items()})

    pruner.adopt = watched
    result = pruner.run()
    for earlier, later in itertools.pairwise(masks):
        assert not any((later[name] & ~earlier[name]).any() for name in later)
    assert all(torch.equal(result.masks[n]["weight"], masks[-1][n]) for n in masks[-1])


def test_an_optimizer_goes_back_with_the_weights():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    seen = []

    def finetune(model):
        seen.append(optimizer.state_dict()["state"].get(0, {}).get("momentum_buffer") is None)
        optimizer.zero_grad()
        model(torch.ones(1, 10)).sum().backward()
        optimizer.step()

    adapt(
        model,
        costs(1.0, 0.1),
        finetune=finetune,
        stateful={"optimizer": optimizer},
        sparsity_per_iteration=0.25,
    ).run()
    assert seen == [True, True, False]


def test_the_call_of_older_releases(tmp_path):
    model, tuned = net(), []
    pruner = NetAdaptPruner(
        model,
        RULES,
        short_term_fine_tuner=tuned.append,
        evaluator=costs(1.0, 0.1),
        base_algo="smallest",
        sparsity_per_iteration=0.25,
        experiment_data_dir=tmp_path / "kept",
    )
    pytest.importorskip("optuna", reason="experiment_data_dir keeps an Optuna study")
    wrapped, _ = pruner.compress()
    assert tuned == [model] * 3
    assert isinstance(wrapped[0], PrunerModuleWrapper)
    _, plain, _, score, config_list = pruner.get_best_result()
    assert isinstance(plain[0], nn.Linear)
    assert score == pruner.best_score
    assert [entry["total_sparsity"] for entry in config_list] == [0.5, 0.5]
    assert (tmp_path / "kept" / "trials.json").exists()


# --- what goes wrong --------------------------------------------------------------------------


def test_a_candidate_that_fails_is_not_chosen():
    good = costs(0.1, 1.0)  # the first layer would be chosen

    def evaluate(model):
        if pruned(model)[0] > 0.3:
            raise RuntimeError("no")
        return good(model)

    with pytest.warns(PruneWarning, match="evaluate failed: RuntimeError: no"):
        result = adapt(evaluator=evaluate).run()
    assert result.complete
    assert result.sparsities == pytest.approx({"0": 0.2, "2": 0.8})
    assert any("RuntimeError" in (trial["problem"] or "") for trial in result.trials)


def test_a_fine_tuner_that_fails_costs_its_candidate():
    calls = []

    def finetune(model):
        calls.append(1)
        with torch.no_grad():
            model[0].module.weight.fill_(7.0)
        if len(calls) == 1:
            raise RuntimeError("diverged")

    with pytest.warns(PruneWarning, match="diverged"):
        result = adapt(evaluator=costs(0.1, 1.0), finetune=finetune).run()
    assert result.trials[1]["problem"] == "RuntimeError: diverged"
    assert result.complete


def test_a_fine_tuner_that_hangs_costs_its_candidate():
    calls = []

    def finetune(model):
        calls.append(1)
        if len(calls) == 1:
            time.sleep(60)

    pruner = adapt(evaluator=costs(0.1, 1.0), finetune=finetune, trial_timeout=0.5)
    with pytest.warns(PruneWarning, match="no result after 0.5 s"):
        result = pruner.run()
    assert result.trials[1]["score"] is None
    assert result.complete


def test_a_round_without_a_score_ends_with_the_round_before():
    def evaluate(model):
        return float("nan") if sum(pruned(model)) > 0.5 else 1.0

    with (
        pytest.warns(PruneWarning, match="None of the candidates of round 3 has a score"),
        pytest.warns(PruneWarning, match="the score is nan"),
    ):
        result = adapt(evaluator=evaluate).run()
    assert not result.complete
    assert sum(result.sparsities.values()) == pytest.approx(0.4)


def test_a_budget_that_no_layer_can_meet():
    rules = [{"op_names": ["0"]}]
    pruner = adapt(
        nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 10)),
        costs(1.0),
        rules,
        pruning_algorithm="units",
        target={"flops": 0.05},
        dummy_input=torch.rand(1, 10),
        sparsity_per_iteration=0.3,
    )
    with pytest.warns(PruneWarning, match=r"10.0% left of flops, where 5.0% is asked for"):
        result = pruner.run()
    assert not result.complete


def test_ctrl_c_ends_with_the_last_complete_round():
    calls = []

    def evaluate(model):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return costs(1.0, 0.1)(model)

    model = net()
    before = [p.detach().clone() for p in model.parameters()]
    result = adapt(model, evaluate).run()
    assert not result.complete
    assert result.sparsities == pytest.approx({"0": 0.0, "2": 0.4})
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("said", "arguments"),
    {
        "sparsity_per_iteration is 0": {"sparsity_per_iteration": 0},
        "finetune is 'sgd'": {"finetune": "sgd"},
        "needs a score": {},
    }.items(),
)
def test_a_mistake_is_named(said, arguments):
    with pytest.raises(ConfigError) as caught:
        adapt(**arguments).run()
    assert said in str(caught.value)


# --- a search that goes on --------------------------------------------------------------------


@pytest.mark.parametrize("stop_at", [1, 4, 9, -1])
@pytest.mark.parametrize("kept", ["checkpoint", "experiment_data_dir", "state", "lost weights"])
def test_a_search_that_trains_goes_on(kept, stop_at, tmp_path):
    if kept in ("experiment_data_dir", "lost weights"):
        pytest.importorskip("optuna", reason="experiment_data_dir keeps an Optuna study")

    def search(place, evaluations=10_000, state=None):
        model = net()
        left = iter(range(evaluations))

        def evaluate(model):
            if next(left, None) is None:
                raise SystemExit
            return costs(0.3, 0.2)(model) + 0.05 * model(torch.ones(1, 10)).mean().item()

        named = {"checkpoint": "checkpoint", "state": None}.get(kept, "experiment_data_dir")
        where = {named: place} if named else {}
        pruner = adapt(model, evaluate, finetune=nudge, **where)
        if state is not None:
            pruner.load_state_dict(state)
        try:
            result = pruner.run()
        except SystemExit:
            return pruner.state_dict()
        return result, [p.detach().clone() for p in model.parameters()]

    whole, weights = search(tmp_path / "whole")
    state = search(tmp_path / "run", stop_at % len(whole.trials))
    assert isinstance(state, dict)
    if kept == "lost weights":
        (tmp_path / "run" / "weights.pt").unlink(missing_ok=True)
    torch.manual_seed(99)
    again, trained = search(tmp_path / "run", state=state if kept == "state" else None)
    assert [t["score"] for t in again.trials] == [t["score"] for t in whole.trials]
    assert all(torch.equal(a, b) for a, b in zip(weights, trained, strict=True))
    assert all(
        torch.equal(mask["weight"], whole.masks[name]["weight"])
        for name, mask in again.masks.items()
    )


@pytest.mark.parametrize("lost", [1, 5])
def test_weights_of_a_later_trial_than_those_known(lost, tmp_path):
    def run():
        return adapt(evaluator=costs(1.0, 0.9), finetune=nudge, experiment_data_dir=tmp_path).run()

    run()
    journal = tmp_path / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-lost]))
    with pytest.raises(PruneError, match=r"weights.pt has weights of a later trial"):
        run()


def test_what_was_stopped_by_an_error_goes_on_in_the_same_process():
    def search(stop_at=None):
        model, left = net(), iter(range(1000))
        score = costs(1.0, 0.9)

        def evaluate(model):
            if next(left) == stop_at:
                raise SystemExit
            return score(model) + model[0].module.weight.sum().item()

        pruner = adapt(model, evaluate, finetune=nudge)
        if stop_at is not None:
            with pytest.raises(SystemExit):
                pruner.run()
        result = pruner.run()
        return [trial["score"] for trial in result.trials], model.state_dict()

    scores, weights = search()
    for stop_at in (2, 7):
        again, found = search(stop_at)
        assert again == scores
        assert all(torch.equal(found[name], value) for name, value in weights.items())


@pytest.mark.parametrize("save", [2, 3, 6])
def test_ctrl_c_while_weights_are_written(save, tmp_path, monkeypatch, ctrl_c):
    model, saved, torch_save = net(), [], torch.save

    def signals(*arguments):
        saved.append(1)
        if len(saved) == save:
            ctrl_c()
        torch_save(*arguments)

    def evaluate(model):
        return costs(1.0, 0.9)(model) + model[0].module.weight.sum().item()

    monkeypatch.setattr(torch, "save", signals)
    pruner = adapt(model, evaluate, finetune=nudge, checkpoint=tmp_path / "search.json")
    result = pruner.run()
    assert not result.complete
    assert evaluate(model) == result.score
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "search.json",
        "search.json.weights",
    ]


def test_it_keeps_what_every_pruner_promises():
    check_pruner(
        NetAdaptPruner,
        pruning_algorithm="channels",
        evaluator=lambda model: 1.0,
        sparsity_per_iteration=0.2,
        skip=["sparsity"],  # which is that of all layers together
    )
