"""Every call of every older release of a schedule does what the call of today does."""

import contextlib

import pytest
from older_calls import LINEAR, Evaluator, X, fit, network, score, settings, sgd
from torch import nn

from prune_core import Compressed, ConfigError, OptionError
from prune_schedule import (
    ADMMPruner,
    AGPPruner,
    AutoCompressPruner,
    LinearPruner,
    NetAdaptPruner,
    SensitivityPruner,
    SimulatedAnnealingPruner,
)

NAMES = (
    *("pruning_algorithm", "total_iteration", "finetuner", "speedup", "dummy_input", "evaluator"),
    "pruning_params",
)


@pytest.mark.parametrize("schedule", [AGPPruner, LinearPruner])
@pytest.mark.parametrize("form", ["2.8", "2.8, by name", "2.5"])
def test_rounds_with_every_argument(schedule, form, tmp_path):
    train, params = lambda model: None, {}
    given = ("smallest", 3, str(tmp_path), True, train, True, X, score, params)
    names = {
        **dict(zip(("pruning_algorithm", "total_iteration", "log_dir"), given, strict=False)),
        **{"keep_intermediate_result": True, "finetuner": train, "dummy_input": X},
        **{"evaluator": score, "pruning_params": params},
    }
    pruner = {
        "2.8": lambda: schedule(network(), LINEAR, *given),
        "2.8, by name": lambda: schedule(network(), LINEAR, speedup=True, **names),
        "2.5": lambda: schedule(network(), LINEAR, speed_up=True, **names),
    }[form]()
    assert settings(pruner, *NAMES) == ["smallest", 3, train, True, X, score, {}]
    pruner.compress()
    assert (tmp_path / "intermediate_result/3/model.pth").exists()


def test_rounds_with_an_evaluator():
    evaluator = Evaluator()
    pruner = AGPPruner(network(), LINEAR, "smallest", 3, ".", False, evaluator, False, {})
    assert settings(pruner, "total_iteration", "evaluator", "finetuner") == [
        3, evaluator.__call__, evaluator.train,
    ]  # fmt: skip


def trainer_of(seen):
    def trainer(model, criterion, optimizer, epoch):
        seen.append((epoch, criterion, optimizer, int(model[0].masked_count("weight"))))

    return trainer


@pytest.mark.parametrize("form", ["by position", "by name"])
def test_rounds_with_a_trainer(form):
    model, seen = network(), []
    optimizer, criterion = sgd(model), nn.CrossEntropyLoss()
    if form == "by position":
        pruner = AGPPruner(model, LINEAR, optimizer, trainer_of(seen), criterion, 4, 2, "smallest")
    else:
        pruner = AGPPruner(
            model, LINEAR, trainer=trainer_of(seen), optimizer=optimizer, criterion=criterion,
            num_iterations=4, epochs_per_iteration=2, pruning_algorithm="smallest",
        )  # fmt: skip
    bound, masks = pruner.compress()
    assert bound is model
    assert [epoch for epoch, *_ in seen] == list(range(8))
    assert {(c, o) for _, c, o, _ in seen} == {(criterion, optimizer)}
    # Four sparsities from 0 to the final one, along (1 - (1 - t/3)³), with two epochs at each.
    wanted = [0.5 * (1 - (1 - t / 3) ** 3) for t in range(4) for _ in range(2)]
    assert [masked for *_, masked in seen] == [int(48 * s + 1e-9) for s in wanted]
    assert int(masks["0"]["weight"].sum()) == 24


def test_a_run_with_a_trainer_counts_on_after_a_restart(tmp_path):
    def run(stop_after):
        seen = []

        def trainer(model, optimizer, criterion, epoch):
            if len(seen) == stop_after:
                raise SystemExit
            seen.append(epoch)

        model = network()
        pruner = AGPPruner(
            model, LINEAR, sgd(model), trainer, len, 3, 2, "smallest",
            checkpoint=tmp_path / "run.pt",
        )  # fmt: skip
        with contextlib.suppress(SystemExit):
            pruner.compress()
        return seen

    assert run(3) == [0, 1, 2]
    assert run(99) == [2, 3, 4, 5], "the round that was not finished begins anew"


def test_a_trainer_needs_what_it_takes():
    model = network()
    with pytest.raises(ConfigError, match="The trainer takes the optimizer: give optimizer="):
        AGPPruner(
            model, LINEAR, trainer=lambda model, optimizer: None, pruning_algorithm="smallest"
        )
    with pytest.raises(ConfigError, match="trainer and finetune both train the model"):
        AGPPruner(model, LINEAR, "smallest", 3, finetuner=fit, trainer=fit)
    pruner = AGPPruner(model, LINEAR, trainer=fit, pruning_algorithm="smallest")
    assert pruner.total_iteration == 9, "ten iterations unless given, the first at 0"


@pytest.mark.parametrize("form", [("smallest",), ()])
def test_training_drives_it_and_returns_the_model(form):
    model = network()
    rules = [{"final_sparsity": 0.5, "end_epoch": 3, "op_types": ["Linear"]}]
    optimizer = sgd(model)
    options = {} if form else {"pruning_algorithm": "smallest"}
    pruner = AGPPruner(model, rules, optimizer, *form, **options)
    returned = pruner.compress()
    assert isinstance(returned, Compressed)
    assert returned[0] is model
    assert returned(X).shape == (4, 2)
    for epoch in range(3):
        pruner.update_epoch(epoch)
    assert int(pruner.masks["0"]["weight"].sum()) == 24


@pytest.mark.parametrize("epochs", ["optional", "keyword"])
def test_one_function_trains_for_every_schedule(epochs):
    seen = []

    def optional(model, epochs=3):
        seen.append(epochs)

    def keyword(model, *, epochs=3):
        seen.append(epochs)

    train = {"optional": optional, "keyword": keyword}[epochs]
    common = {"pruning_algorithm": "smallest", "finetune": train}
    pruners = [
        AGPPruner(network(), LINEAR, total_iteration=1, **common),
        ADMMPruner(network(), LINEAR, iterations=1, training_epochs=1, **common),
        AutoCompressPruner(
            network(), LINEAR, evaluate=score, total_iteration=1, admm_num_iterations=1,
            admm_training_epochs=1, cool_down_rate=0.3, finetuner=train, **common,
        ),
        SimulatedAnnealingPruner(network(), LINEAR, score, cool_down_rate=0.3, **common),
        NetAdaptPruner(
            network(), LINEAR, evaluate=score, sparsity_per_iteration=0.5, **common
        ),
        SensitivityPruner(network(), LINEAR, score, sparsity_per_iter=0.5, **common),
    ]  # fmt: skip
    for pruner in pruners:
        seen.clear()
        returned = pruner.compress()
        assert isinstance(returned, Compressed), type(pruner).__name__
        assert set(seen) == {3}, type(pruner).__name__


def test_a_function_that_requires_more_is_refused_at_once():
    def train(model, optimizer):
        """Never called."""

    for build in (
        lambda m: AGPPruner(m, LINEAR, "smallest", 2, finetuner=train),
        lambda m: SimulatedAnnealingPruner(m, LINEAR, score, finetuner=train),
        lambda m: NetAdaptPruner(m, LINEAR, train, score),
    ):
        model = network()
        with pytest.raises(ConfigError, match="given as finetune, requires 'optimizer'"):
            build(model)
        assert type(model[0]) is nn.Linear


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda m: AGPPruner(m, LINEAR, totl_iteration=3), "Did you mean 'total_iteration'"),
        (lambda m: NetAdaptPruner(m, LINEAR, fit, score, trget=1), "Did you mean 'target'"),
        (lambda m: SimulatedAnnealingPruner(m, LINEAR, sede=1), "Did you mean 'seed'"),
    ],
)
def test_unknown_arguments(build, says):
    with pytest.raises(OptionError, match=says):
        build(network())
