"""Layers lose what they tolerate."""

import itertools

import pytest
import torch
from torch import nn

from prune_core import ConfigError, PruneWarning
from prune_core.testing import check_pruner
from prune_schedule import SensitivityPruner

pytest.importorskip("optuna", reason="searches are kept in Optuna studies")

RULES = [{"sparsity": 0.5, "op_types": ["Linear"]}]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 10, bias=False), nn.ReLU(), nn.Linear(10, 10, bias=False))


def pruned(model):
    return [1 - m.masks["weight"].float().mean().item() for m in model if hasattr(m, "masks")]


def delicate_first(model):
    """The first layer costs ten times what the second does, so it tolerates less."""
    first, second = pruned(model)
    return 1.0 - 0.5 * first - 0.05 * second


def sensitivity(model=None, evaluator=delicate_first, **arguments):
    arguments = {"pruning_algorithm": "smallest", "sparsity_per_iter": 0.5, **arguments}
    return SensitivityPruner(model or net(), RULES, evaluator, **arguments)


def test_by_hand():
    # Up to 0.1 of the first layer costs 0.05, and 0.9 of the second costs 0.045.
    pruner = sensitivity(acc_drop_threshold=0.051)
    result = pruner.run()
    curves = {
        layer: [c["sparsity"] for c in pruner.curves if c["layer"] == layer] for layer in "02"
    }
    assert curves == {"0": [0.1, 0.2], "2": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]}
    # 1 : 9, so that half of all is pruned
    assert result.sparsities == {"0": 0.1, "2": 0.9}
    assert result.score == pytest.approx(1 - 0.05 - 0.045)


def test_rounds_only_add():
    pruner = sensitivity(sparsity_per_iter=0.2)
    result = pruner.run()
    assert sum(result.sparsities.values()) / 2 == pytest.approx(0.5, abs=0.01)
    assert {curve["round"] for curve in pruner.curves} == {1, 2, 3}


def test_shares_of_ones_own():
    pruner = sensitivity(sparsity_proportion_calc=lambda tolerated: dict.fromkeys(tolerated, 1.0))
    assert pruner.run().sparsities == {"0": 0.5, "2": 0.5}


def test_curves_are_data(tmp_path):
    pruner = sensitivity()
    pruner.run()
    pruner.curves.save(tmp_path / "curves.csv")
    header, first, *_ = (tmp_path / "curves.csv").read_text().splitlines()
    assert header == "round,layer,sparsity,score"
    assert first.startswith("1,0,0.1,0.9")


def test_the_call_of_older_releases():
    model = net()
    trained = []

    def evaluator(same_model, scale):
        assert same_model is model
        return scale * delicate_first(model)

    pruner = SensitivityPruner(
        model, RULES, finetuner=trained.append, evaluator=evaluator, base_algo="smallest"
    )
    pruner.compress(eval_args=[model], eval_kwargs={"scale": 1.0}, finetune_args=["tuned"])
    assert trained == ["tuned"] * 5
    assert sum(pruner.sparsities.values()) / 2 == pytest.approx(0.5, abs=0.01)


def test_the_plain_names_and_those_of_older_releases(tmp_path):
    arguments = {"base_algo": "smallest", "sparsity_per_iter": 0.5}
    pruner = SensitivityPruner(
        net(), RULES, evaluate=delicate_first, finetune=lambda model: None, **arguments
    )
    result = pruner.run()
    older = SensitivityPruner(
        *(net(), RULES, delicate_first, None, "smallest", None, 0.5, 0.05, tmp_path)
    )
    with pytest.warns(PruneWarning, match="'resume_sensitivity' has no effect"):
        older.compress(resume_sensitivity="sensitivity.csv")
    assert older.sparsities == result.sparsities
    assert (tmp_path / "best_result" / "masks.pth").exists()


@pytest.mark.parametrize("stop", ["training", "evaluation"])
def test_what_was_stopped_goes_on_in_the_same_process(stop):
    def search(stop_at=None):
        model = net()
        calls = {"training": 0, "evaluation": 0}

        def count(kind):
            calls[kind] += 1
            if stop == kind and calls[kind] == stop_at:
                raise KeyboardInterrupt

        def finetune(model):
            for parameter in model.parameters():
                with torch.no_grad():
                    parameter.add_(0.1 * torch.randn_like(parameter))
                count("training")

        def evaluate(model):
            count("evaluation")
            return delicate_first(model) + model[0].module.weight.sum().item()

        pruner = sensitivity(model, evaluate, finetuner=finetune, sparsity_per_iter=0.2)
        result = pruner.run()
        if stop_at is not None:
            assert not result.complete
            assert result.score in (None, evaluate(model))
            result = pruner.run()
        assert result.complete
        return {name: value.clone() for name, value in model.state_dict().items()}

    expected = search()
    for stop_at in {"training": (2, 5), "evaluation": (20, 22)}[stop]:
        found = search(stop_at)
        assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_what_training_has_pruned_stays_pruned():
    masks = []

    def finetune(model):
        with torch.no_grad():  # what is masked would be the largest now
            for layer in (model[0], model[2]):
                layer.module.weight.masked_fill_(~layer.masks["weight"], 9.0)
        masks.append({n: m["weight"].clone() for n, m in pruner.masks.items()})

    pruner = sensitivity(finetuner=finetune, sparsity_per_iter=0.1)
    pruner.run()
    for earlier, later in itertools.pairwise(masks):
        assert not any((later[name] & ~earlier[name]).any() for name in later)


@pytest.mark.parametrize("stop_at", [3, 14, 20, -1])
def test_a_search_that_trains_goes_on(stop_at, tmp_path):
    def search(folder, evaluations=10_000):
        model = net()
        left = iter(range(evaluations))

        def evaluate(model):
            if next(left, None) is None:
                raise SystemExit
            return delicate_first(model) + 0.01 * torch.rand(()).item()

        def finetune(model):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))

        pruner = sensitivity(
            model, evaluate, finetuner=finetune, sparsity_per_iter=0.2, experiment_data_dir=folder
        )
        result = pruner.run()
        return result, [p.detach().clone() for p in model.parameters()]

    whole, weights = search(tmp_path / "whole")
    with pytest.raises(SystemExit):
        search(tmp_path / "run", stop_at % len(whole.trials))
    torch.manual_seed(99)
    again, trained = search(tmp_path / "run")
    assert [t["score"] for t in again.trials] == [t["score"] for t in whole.trials]
    assert all(torch.equal(a, b) for a, b in zip(weights, trained, strict=True))
    assert all(
        torch.equal(mask["weight"], whole.masks[name]["weight"])
        for name, mask in again.masks.items()
    )


def test_it_keeps_what_every_pruner_promises():
    check_pruner(
        SensitivityPruner,
        pruning_algorithm="channels",
        evaluator=lambda model: 1.0,
        ratios=[0.4, 0.8],
        sparsity_per_iter=0.4,
        skip=["sparsity"],  # which is that of all layers together
    )


@pytest.mark.parametrize(
    ("said", "arguments"),
    {
        "sparsity_per_iter is 0": {"sparsity_per_iter": 0},
        "acc_drop_threshold is -1": {"acc_drop_threshold": -1},
        "ratios is [1.0]": {"ratios": [1.0]},
        "finetune is 'sgd'": {"finetuner": "sgd"},
    }.items(),
)
def test_a_mistake_is_named(said, arguments):
    with pytest.raises(ConfigError) as caught:
        sensitivity(**arguments)
    assert said in str(caught.value)
