"""The calls of older releases of ADMM and AutoCompress."""

import pytest
from older_calls import LINEAR, X, fit, network, score, settings, sgd
from torch import nn

from prune_core import ConfigError
from prune_schedule import (
    ADMMPruner,
    AutoCompressPruner,
)


def admm(seen):
    def trainer(model, optimizer, criterion, epoch):
        seen.append((criterion, epoch))
        model(X).sum().backward()

    return trainer


@pytest.mark.parametrize("form", ["1.9", "1.9, by name", "2.1", "2.1, by name", "2.8"])
def test_admm(form):
    model, seen, criterion = network(), [], nn.MSELoss()
    trainer = admm(seen)
    pruner = {
        "1.9": lambda: ADMMPruner(model, LINEAR, trainer, 2, 3, 0.01, "smallest"),
        "1.9, by name": lambda: ADMMPruner(
            model, LINEAR, trainer=trainer, num_iterations=2, epochs=3, row=0.01,
            base_algo="smallest",
        ),
        "2.1": lambda: ADMMPruner(model, LINEAR, trainer, criterion, 2, 3, 0.01, "smallest"),
        "2.1, by name": lambda: ADMMPruner(
            model, LINEAR, trainer=trainer, criterion=criterion, num_iterations=2,
            epochs_per_iteration=3, row=0.01, base_algo="smallest",
        ),
        "2.8": lambda: ADMMPruner(
            model, LINEAR, trainer, sgd(model), criterion, 2, 3, "fine-grained", row=0.01,
            pruning_algorithm="smallest",
        ),
    }[form]()  # fmt: skip
    _, masks = pruner.compress()
    assert [epoch for _, epoch in seen] == list(range(6))
    expected = nn.functional.cross_entropy if form.startswith("1.9") else criterion
    assert {c for c, _ in seen} == {expected}
    assert pruner.rho == 0.01
    assert int(masks["0"]["weight"].sum()) == 24


def quick(trainer, **given):
    return {
        "trainer": trainer,
        "evaluator": score,
        "num_iterations": 1,
        "base_algo": "smallest",
        "cool_down_rate": 0.3,
        "admm_num_iterations": 2,
        **given,
    }


@pytest.mark.parametrize("epochs", ["admm_training_epochs", "admm_epochs_per_iteration"])
def test_autocompress_of_the_first_releases(epochs):
    seen, criterion = [], nn.MSELoss()
    pruner = AutoCompressPruner(
        network(), LINEAR, criterion=criterion, **quick(admm(seen), **{epochs: 3})
    )
    model = pruner.compress()
    assert model(X).shape == (4, 2)
    assert seen == [(criterion, epoch) for epoch in range(6)]


@pytest.mark.parametrize("criterion", [(), (nn.MSELoss(),)])
def test_autocompress_by_position(criterion):
    temperatures = (100, 20, 0.3, 0.2)
    pruner = AutoCompressPruner(
        network(), LINEAR, admm([]), score, X, *criterion, 2, "minimize", "units", *temperatures,
        3, 1, 0.25,
    )  # fmt: skip
    assert settings(pruner, "rounds", "pruning_algorithm", "rho", "dummy_input") == [
        2, "units", 0.25, X,
    ]  # fmt: skip
    assert pruner._search["optimize_mode"] == "minimize"
    assert pruner._search["perturbation_magnitude"] == 0.2
    assert pruner._admm.get("criterion") is (criterion[0] if criterion else None)
    assert (pruner._admm["iterations"], pruner._admm["training_epochs"]) == (3, 1)


@pytest.mark.parametrize(
    ("params", "search", "given", "algorithm"),
    [
        ({}, {}, {}, "level"),
        ({"granularity": "fine-grained"}, {}, {}, "level"),
        ({"granularity": "coarse-grained"}, {}, {}, "l1"),
        ({}, {"pruning_algorithm": "rows"}, {}, "rows"),
        ({"granularity": "coarse-grained"}, {"pruning_algorithm": "rows"}, {}, "l1"),
        ({"granularity": "coarse-grained"}, {}, {"pruning_algorithm": "channels"}, "channels"),
    ],
)
def test_the_granularity_of_autocompress(params, search, given, algorithm, toys, monkeypatch):
    asked = []

    def get_pruner(name, **_):
        asked.append(name)
        return toys.Weights if name == "level" else toys.Channels

    monkeypatch.setattr("prune_schedule.run.delegating.get_pruner", get_pruner)
    params = {"trainer": fit, "iterations": 1, "training_epochs": 1, **params}
    pruner = AutoCompressPruner(
        network(), LINEAR, 1, params, {"evaluator": score, "cool_down_rate": 0.3, **search}, **given
    )
    assert pruner.pruning_algorithm == algorithm
    pruner.compress()
    assert set(asked) == {algorithm}


def test_the_sparsity_of_autocompress_is_reached_weight_by_weight(toys, monkeypatch):
    monkeypatch.setattr("prune_schedule.run.delegating.get_pruner", lambda *_, **__: toys.Weights)
    rules = [{"total_sparsity": 0.8, "op_types": ["Linear"]}]
    params = {"trainer": fit, "iterations": 1, "training_epochs": 1, "granularity": "fine-grained"}
    search = {"evaluator": score, "cool_down_rate": 0.3}
    pruner = AutoCompressPruner(network(), rules, 2, params, search, keep_intermediate_result=True)
    _, masks = pruner.compress()
    left = sum(int(mask["weight"].sum()) for mask in masks.values())
    assert left / (48 + 80 + 20) == pytest.approx(0.2, abs=0.02)


def test_what_nobody_says_of_admm_is_as_admm_has_it():
    search = {"evaluator": score, "cool_down_rate": 0.3}
    pruner = AutoCompressPruner(
        network(), LINEAR, 1, {"finetune": fit, "granularity": "coarse-grained"}, search,
        pruning_algorithm="smallest",
    )  # fmt: skip
    assert {"iterations", "training_epochs"}.isdisjoint(pruner._admm)
    _, masks = pruner.compress()
    assert not all(bool(mask["weight"].all()) for mask in masks.values())


def test_an_unknown_granularity():
    with pytest.raises(ConfigError, match=r"admm_params\['granularity'\] is 'rough'"):
        AutoCompressPruner(
            network(), LINEAR, 1, {"trainer": fit, "granularity": "rough"}, {"evaluator": score}
        )
